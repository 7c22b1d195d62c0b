"""Make the demo's sample sound: python -m training.sample SET FOLDER."""

import argparse
from pathlib import Path

import numpy as np
import soundfile

from training.dataset import Dataset, Utterance
from voxmlx import Checkpoint, Session, TextDelta, load

_PAUSE_SECONDS = (0.9, 1.4, 0.7, 1.1, 1.6, 0.8, 1.0)

__all__ = ["main"]


def _read(checkpoint: Checkpoint, samples: np.ndarray) -> list[str]:
    session = Session(checkpoint)
    events = session.push(samples) + session.finish()
    return "".join(e.text for e in events if isinstance(e, TextDelta)).split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("set", type=Path, help="a dataset of one free voice")
    parser.add_argument("folder", type=Path, help="the checkpoint; the sample goes in")
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    checkpoint = load(args.folder, "float32")
    chosen: list[Utterance] = []
    sound = np.zeros(8000, np.float32)
    for item in Dataset(args.set):
        if len(item.words) < 4:
            continue
        pause = _PAUSE_SECONDS[len(chosen) % len(_PAUSE_SECONDS)]
        silence = np.zeros(int(pause * 16_000), np.float32)
        longer = np.concatenate([sound, item.samples, silence])
        words = [word for one in (*chosen, item) for word in one.words]
        # Only sentences that the model reads rightly where they stand: the sample
        # shows that a set-up works, it measures nothing.
        if _read(checkpoint, longer) == words:
            chosen.append(item)
            sound = longer
        if len(sound) > args.seconds * 16_000:
            break
    soundfile.write(args.folder / "sample.flac", sound, 16_000, subtype="PCM_16")
    lines = [" ".join(item.words) for item in chosen]
    (args.folder / "sample.txt").write_text("\n".join(lines) + "\n")
    print(f"{len(sound) / 16_000:.1f} s", *lines, sep="\n")


if __name__ == "__main__":
    main()
