"""Words that were recognized, in time: how far from the marks of who spoke them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np

from benchmarks.speech_sets import Utterance
from voxmlx import Word

__all__ = [
    "END_LIMIT_MS",
    "START_LIMIT_MS",
    "Marked",
    "TimeErrors",
    "in_one_stream",
    "recognized",
]

END_LIMIT_MS, START_LIMIT_MS = 80, 160


@dataclass(frozen=True, slots=True)
class Marked:
    """A word that was said; `start_ms` is None where no mark tells it."""

    text: str
    start_ms: float | None
    end_ms: float


@dataclass(frozen=True, slots=True)
class TimeErrors:
    """Errors in ms of n words' ends and starts; late is positive."""

    n_words: int
    end_mean: float
    end_median: float
    end_within: float  # share of ends within END_LIMIT_MS
    # None where no two words in a row were recognized.
    start_mean: float | None
    start_within: float | None  # share of starts within START_LIMIT_MS

    @classmethod
    def of(cls, marks: Sequence[Marked], words: Sequence[Word]) -> "TimeErrors | None":
        """Measure recognized words: an end against its mark, a start against the
        mark of the word before (only inside an utterance: there, words touch).

        Returns None where no word was recognized.
        """
        pairs = recognized(marks, words)
        if not pairs:
            return None
        ends = np.array([word.end_ms - mark.end_ms for mark, word in pairs])
        starts = np.array(
            [
                word.start_ms - mark.start_ms
                for (before, _), (mark, word) in pairwise(pairs)
                if mark.start_ms is not None and before.end_ms == mark.start_ms
            ]
        )
        return cls(
            n_words=len(pairs),
            end_mean=float(ends.mean()),
            end_median=float(np.median(ends)),
            end_within=float((np.abs(ends) <= END_LIMIT_MS).mean()),
            start_mean=float(starts.mean()) if len(starts) else None,
            start_within=(
                float((np.abs(starts) <= START_LIMIT_MS).mean())
                if len(starts)
                else None
            ),
        )


def in_one_stream(
    said: Iterable[Utterance], pause_s: float
) -> tuple[np.ndarray, list[Marked]]:
    """Utterances one after another with pauses around them, and all their words."""
    pause = np.zeros(int(16_000 * pause_s), np.float32)
    parts = [pause]
    marks: list[Marked] = []
    n_samples = len(pause)
    for utterance in said:
        assert utterance.word_ends_ms is not None
        ends_ms = [n_samples / 16 + end for end in utterance.word_ends_ms]
        marks += map(Marked, utterance.text.split(), [None, *ends_ms[:-1]], ends_ms)
        parts += [utterance.samples, pause]
        n_samples += len(utterance.samples) + len(pause)
    return np.concatenate(parts), marks


def recognized(
    marks: Sequence[Marked], words: Sequence[Word]
) -> list[tuple[Marked, Word]]:
    """Pair the words that were recognized with their marks, in order."""
    matcher = SequenceMatcher(
        a=[mark.text for mark in marks],
        b=[word.text.lower().strip(".,?!") for word in words],
        autojunk=False,
    )
    return [
        (marks[block.a + i], words[block.b + i])
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    ]
