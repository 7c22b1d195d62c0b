"""Pick the repository's small test set: python -m training.testset SETS FOLDER."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from training.dataset import Dataset, Utterance
from training.generate import is_held_out_sentence

# Kind of sentence -> sets of training.heldout and how many of each. The recordings are
# not here: their licence asks that what is made of them be shared alike.
_KINDS = {
    "espeak": {"seen-espeak": 24},
    "flite": {"seen-flite": 24},
    "rhvoice": {"seen-rhvoice": 24},
    "slt": {"unseen-flite-slt": 12, "unseen-rhvoice-slt": 12},
    "pico": {"unseen-pico": 24},
}
_PAUSE = 4800  # samples of silence after each utterance

__all__ = ["main"]


def _different(dataset: Dataset, count: int) -> Iterator[Utterance]:
    """The first `count` utterances whose text has not come before."""
    texts: set[tuple[str, ...]] = set()
    for item in dataset:
        if item.words not in texts and is_held_out_sentence(list(item.words)):
            texts.add(item.words)
            yield item
        if len(texts) == count:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("sets", type=Path, help="folder made by training.heldout")
    parser.add_argument("folder", type=Path, help="usually tests/data/demo")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    parts: list[np.ndarray] = []
    rows = []
    start = 0
    chosen = (
        (kind, item)
        for kind, sets in _KINDS.items()
        for name, count in sets.items()
        for item in _different(Dataset(args.sets / name), count)
    )
    for kind, item in chosen:
        # Pico tells no ends of words.
        ends_ms = [] if kind == "pico" else [round(end / 16) for end in item.word_ends]
        rows.append(
            {
                "kind": kind,
                "voice": item.voice,
                "start_sample": start,
                "n_samples": len(item.samples),
                "text": " ".join(item.words),
                "word_ends_ms": ends_ms,
            }
        )
        parts += [item.samples, np.zeros(_PAUSE, np.float32)]
        start += len(item.samples) + _PAUSE
    sound = np.concatenate(parts)
    path = args.folder / "held_out.ogg"
    with soundfile.SoundFile(
        path, "w", 16_000, 1, "VORBIS", format="OGG", compression_level=0.4
    ) as file:
        # libsndfile's encoder overflows its stack on minutes of sound in one piece.
        for piece in np.array_split(sound, len(sound) // 16_000):
            file.write(piece)
    lines = [json.dumps(row) for row in rows]
    (args.folder / "held_out.jsonl").write_text("\n".join(lines) + "\n")
    print(f"{len(rows)} utterances, {start / 16_000:.0f} s")


if __name__ == "__main__":
    main()
