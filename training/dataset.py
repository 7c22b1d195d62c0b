"""Utterances on disk: raw PCM16 beside one JSON line each."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Dataset", "Utterance", "to_pcm16", "write_dataset"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """Mono float32 samples at 16 kHz, the words in them and where each ends."""

    samples: np.ndarray
    words: tuple[str, ...]
    word_ends: tuple[int, ...]  # samples
    voice: str


def to_pcm16(samples: np.ndarray) -> np.ndarray:
    """Round float samples to int16; what exceeds full scale is cut off."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")


def write_dataset(folder: Path, utterances: Iterable[Utterance]) -> int:
    """Write `samples.pcm` and `utterances.jsonl`; return how many there were."""
    folder.mkdir(parents=True, exist_ok=True)
    start = n_utterances = 0
    with (
        (folder / "samples.pcm").open("wb") as pcm,
        (folder / "utterances.jsonl").open("w") as lines,
    ):
        for item in utterances:
            pcm.write(to_pcm16(item.samples).tobytes())
            row = {
                "voice": item.voice,
                "start": start,
                "n_samples": len(item.samples),
                "words": list(item.words),
                "word_ends": list(item.word_ends),
            }
            lines.write(json.dumps(row) + "\n")
            start += len(item.samples)
            n_utterances += 1
    return n_utterances


class Dataset:
    """A folder made by `write_dataset`, its PCM16 mapped into memory."""

    def __init__(self, folder: Path) -> None:
        with (folder / "utterances.jsonl").open() as lines:
            self._rows = [json.loads(line) for line in lines]
        self._pcm = np.memmap(folder / "samples.pcm", dtype="<i2", mode="r")
        self.single_word_indices = [
            i for i, row in enumerate(self._rows) if len(row["words"]) == 1
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Utterance]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Utterance:
        row = self._rows[index]
        start = row["start"]
        pcm = self._pcm[start : start + row["n_samples"]]
        return Utterance(
            pcm.astype(np.float32) / 32768,
            tuple(row["words"]),
            tuple(row["word_ends"]),
            row["voice"],
        )

    def voice(self, index: int) -> str:
        return self._rows[index]["voice"]

    def words(self, index: int) -> list[str]:
        return self._rows[index]["words"]
