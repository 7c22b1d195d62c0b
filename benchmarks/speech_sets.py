"""Folders of speech with its text -> utterances in memory, for benchmarks of few."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.corpora.layouts import sets_in
from benchmarks.corpora.passages import passages

__all__ = ["Utterance", "utterances"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """16 kHz mono float32 samples, what is said, and where words end if that is known."""

    samples: np.ndarray
    text: str
    word_ends_ms: tuple[float, ...] | None = None


def utterances(folder: Path) -> Iterator[Utterance]:
    """Yield the utterances of all sets in a folder, in order. Raises AudioError."""
    for speech in sets_in(folder):
        for passage in passages(speech):
            samples = np.concatenate(list(passage.pieces()))
            yield Utterance(samples, passage.text, passage.word_ends_ms)
