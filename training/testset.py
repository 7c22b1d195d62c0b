"""Pick the repository's small test set: python -m training.testset SETS FOLDER."""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile

from training.dataset import Dataset

# Only sets whose sound may be passed on.
_COUNTS = {
    "seen-espeak": 12,
    "seen-flite": 10,
    "seen-rhvoice": 8,
    "unseen-flite-slt": 8,
}
_PAUSE = 4800  # samples of silence after each utterance

__all__ = ["main"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", type=Path, help="folder made by training.heldout")
    parser.add_argument("folder", type=Path, help="usually tests/data/demo")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    parts: list[np.ndarray] = []
    rows = []
    start = 0
    for name, count in _COUNTS.items():
        dataset = Dataset(args.sets / name)
        for i in range(count):
            item = dataset[i]
            rows.append(
                {
                    "set": name,
                    "voice": item.voice,
                    "start_sample": start,
                    "n_samples": len(item.samples),
                    "text": " ".join(item.words),
                    "word_ends_ms": [round(end / 16) for end in item.word_ends],
                }
            )
            parts += [item.samples, np.zeros(_PAUSE, np.float32)]
            start += len(item.samples) + _PAUSE
    sound = np.concatenate(parts)
    soundfile.write(args.folder / "held_out.flac", sound, 16_000, subtype="PCM_16")
    lines = [json.dumps(row) for row in rows]
    (args.folder / "held_out.jsonl").write_text("\n".join(lines) + "\n")
    print(f"{len(rows)} utterances, {start / 16_000:.0f} s")


if __name__ == "__main__":
    main()
