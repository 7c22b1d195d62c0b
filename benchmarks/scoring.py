"""Errors of a text by kind, and an alignment to read."""

from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

import jiwer

from benchmarks.normalizers import Normalizer

__all__ = ["Errors", "Score", "aligned_lines", "score"]

# Between the ends of a long text, only what is near an error is shown.
_CONTEXT = 3
_LINE_COLUMNS = 88


@dataclass(frozen=True, slots=True)
class Errors:
    """Words (or characters) that were said, and the errors among them by kind."""

    n_said: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def n_wrong(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(
            self.n_said + other.n_said,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True, slots=True)
class Score:
    """Errors, and pairs of what was said and heard; None where one has no other."""

    errors: Errors
    pairs: tuple[tuple[str | None, str | None], ...]


def score(said: str, heard: str, normalizer: Normalizer) -> Score:
    """Compare two texts after normalizing both, with as few errors as can be."""
    words, found = normalizer.units(said), normalizer.units(heard)
    if not words or not found:
        errors = Errors(len(words), 0, len(words), len(found))
        missing = ((word, None) for word in words)
        return Score(errors, (*missing, *((None, word) for word in found)))
    # jiwer splits at spaces, which neither side's words have.
    result = jiwer.process_words(" ".join(words), " ".join(found))
    pairs: list[tuple[str | None, str | None]] = []
    for chunk in result.alignments[0]:
        left = words[chunk.ref_start_idx : chunk.ref_end_idx]
        right = found[chunk.hyp_start_idx : chunk.hyp_end_idx]
        n = max(len(left), len(right))
        pairs += zip(_padded(left, n), _padded(right, n), strict=True)
    errors = Errors(
        len(words), result.substitutions, result.deletions, result.insertions
    )
    return Score(errors, tuple(pairs))


def aligned_lines(pairs: Sequence[tuple[str | None, str | None]]) -> list[str]:
    """Return what was said over what was heard, errors in capitals, gaps as stars."""
    near = [False] * len(pairs)
    for i, (left, right) in enumerate(pairs):
        if left != right:
            for j in range(max(0, i - _CONTEXT), min(len(pairs), i + _CONTEXT + 1)):
                near[j] = True
    lines: list[str] = []
    top = bottom = ""
    for i, (left, right) in enumerate(pairs):
        if not near[i]:
            if i and near[i - 1]:
                top, bottom = f"{top}... ", f"{bottom}... "
            continue
        shown = [left or "*", right or "*"]
        if left != right:
            shown = [one.upper() for one in shown]
        width = max(map(_columns, shown))
        if top and _columns(top) + width > _LINE_COLUMNS:
            lines += [f"said   {top.rstrip()}", f"heard  {bottom.rstrip()}", ""]
            top = bottom = ""
        top += _filled(shown[0], width)
        bottom += _filled(shown[1], width)
    if top:
        lines += [f"said   {top.rstrip()}", f"heard  {bottom.rstrip()}"]
    return lines


def _padded(words: list[str], n: int) -> list[str | None]:
    return [*words, *[None] * (n - len(words))]


def _columns(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)


def _filled(word: str, width: int) -> str:
    """The word and its gap; a gap in the text is stars."""
    if word == "*":
        word = "*" * width
    return word + " " * (width - _columns(word) + 1)
