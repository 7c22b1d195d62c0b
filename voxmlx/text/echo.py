"""The rule for words of one channel that are only the echo of another channel's."""

from collections.abc import Sequence
from dataclasses import dataclass

from voxmlx.events import Word
from voxmlx.text.words import changes, letters_of

__all__ = ["EARLY_MS", "LATE_MS", "NEAR_MS", "MeasuredWord", "is_covered", "is_repeat"]

# An echo comes up to 300 ms after what it repeats. Ends of words are known to an audio
# token of 80 ms.
EARLY_MS, LATE_MS = 120, 380
# It is at least so much quieter, and more where the model is surer of it than of what it
# repeats: by 0.1 in hundred decisions, chance alone makes it so.
_QUIETER_DB = 4.0
_SURER, _DB_PER_SURER = 0.1, 12.0
# What was misheard has no text to tell by, so its level must tell more.
_COVERED_DB = 7.0
# A word that was misheard is like the word said: so many of its letters may differ.
_MAX_DIFFERENT = 0.4
# Words so near to an echo belong to it, if nothing speaks for them.
NEAR_MS = 1000


@dataclass(frozen=True, slots=True)
class MeasuredWord:
    """A word of one channel, and how loud the channel was while it was said."""

    word: Word
    level_dbfs: float


def is_repeat(word: MeasuredWord, others: Sequence[MeasuredWord]) -> bool:
    """Return whether one of another channel's words comes again in this one.

    It has the same letters, or nearly so, comes within 300 ms, is quieter by 4 dB, and
    the model is no surer of it. One that is quieter still may be surer.
    """
    return any(
        _follows(word.word, other.word)
        and _is_weaker(word, other, _QUIETER_DB)
        and _are_alike(letters_of(word.word.text), letters_of(other.word.text))
        for other in others
    )


def is_covered(word: MeasuredWord, others: Sequence[MeasuredWord]) -> bool:
    """Return whether others spoke, louder, all the time in which the word was said.

    Beside an echo, such a word is an echo that was misheard.
    """
    start_ms, end_ms = word.word.start_ms, word.word.end_ms
    spans = [
        (other.word.start_ms - EARLY_MS, other.word.end_ms + LATE_MS)
        for other in others
        if _is_weaker(word, other, _COVERED_DB)
    ]
    middle_ms = (start_ms + end_ms) // 2
    return all(
        any(start <= at <= end for start, end in spans)
        for at in (start_ms, middle_ms, end_ms)
    )


def _follows(word: Word, other: Word) -> bool:
    return any(
        -EARLY_MS <= late_ms <= LATE_MS
        for late_ms in (word.end_ms - other.end_ms, word.start_ms - other.start_ms)
    )


def _is_weaker(word: MeasuredWord, other: MeasuredWord, least_db: float) -> bool:
    sure, other_sure = word.word.confidence, other.word.confidence
    if sure is not None and other_sure is not None:
        least_db += _DB_PER_SURER * max(0.0, sure - other_sure - _SURER)
    return word.level_dbfs <= other.level_dbfs - least_db


def _are_alike(letters: str, others: str) -> bool:
    if letters == others:
        return True
    longer = max(len(letters), len(others))
    allowed = int(_MAX_DIFFERENT * longer)
    if abs(len(letters) - len(others)) > allowed:
        return False
    return changes(letters, others)[-1] <= allowed
