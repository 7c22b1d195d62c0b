"""Make the demo's sample sound: python -m training.sample SETS FOLDER."""

import argparse
from pathlib import Path

import numpy as np
import soundfile
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from training.dataset import Dataset, Utterance
from training.evaluate import transcribe
from training.export import load_checkpoint
from training.model import TinyVoxtral

_PAUSE_SECONDS = (0.9, 1.4, 0.7, 1.1, 1.6, 0.8, 1.0)
_DELAY_TOKENS = 6  # 480 ms

__all__ = ["main"]


def _read(model: TinyVoxtral, tokenizer: Tekkenizer, samples: np.ndarray) -> list[str]:
    (ids,) = transcribe(model, [samples], _DELAY_TOKENS)
    return tokenizer.decode(ids).split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", type=Path, help="a dataset of one free voice")
    parser.add_argument("folder", type=Path, help="the checkpoint; the sample goes in")
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    model = load_checkpoint(args.folder).eval()
    tokenizer = Tekkenizer.from_file(args.folder / "tekken.json")
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
        if _read(model, tokenizer, longer) == words:
            chosen.append(item)
            sound = longer
        if len(sound) > args.seconds * 16_000:
            break
    soundfile.write(args.folder / "sample.wav", sound, 16_000, subtype="PCM_16")
    lines = [" ".join(item.words) for item in chosen]
    (args.folder / "sample.txt").write_text("\n".join(lines) + "\n")
    print(f"{len(sound) / 16_000:.1f} s", *lines, sep="\n")


if __name__ == "__main__":
    main()
