"""Line breaks of text in any language: where a line ends best, and what it may hold."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from voxmlx.text.words import starts_piece

__all__ = [
    "Break",
    "best_break",
    "columns",
    "ends_clause",
    "ends_sentence",
    "is_joined",
    "last_sign",
    "may_break",
    "printable",
]

# What may not begin a line, after JIS X 4051 and GB/T 15834: closing brackets and
# quotation marks, punctuation, small kana, and marks that repeat or prolong.
_NEVER_FIRST = frozenset(
    "、。，．・：；？！‼⁇⁈⁉…‥,.;:?!%％‰℃、｡､･"
    ")]}）］｝〕〉》」』】〙〗〟’”»›｠｣"
    "ーｰ々〻ゝゞヽヾ゛゜ﾞﾟ〜～‐゠–"
    "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰㇱㇲㇳㇴㇵㇶㇷㇸㇹㇺㇻㇼㇽㇾㇿ"
    "ｧｨｩｪｫｬｭｮｯ۔،؟؛।॥"
)
# What may not end a line: opening brackets and quotation marks, signs before a number.
_NEVER_LAST = frozenset("([{（［｛〔〈《「『【〘〖〝‘“«‹｟｢¿¡￥＄￡№＃")

_ZERO_WIDTH_JOINER = "\u200d"

_SENTENCE_ENDS = frozenset(".!?…。！？｡؟۔।॥‼⁇⁈⁉")
_CLAUSE_ENDS = frozenset(",;:、，；：､،؛—–")
# What may follow the sign that ends a sentence or a clause.
_CLOSING = "\"'”’»›)]}」』）］｝〕〉》】〙〗〟｣"


def may_break(before: str, after: str) -> bool:
    """Return whether a line may end between two characters that follow each other.

    It may at a space, and between letters of languages that are written without
    spaces. No line begins with what belongs to the text before it, or ends with what
    belongs to the text after it: `きょ` and `」。` stay together.
    """
    if before.isspace():
        return not after.isspace() and after not in _NEVER_FIRST
    if is_joined(after) or before == _ZERO_WIDTH_JOINER:
        return False
    if after in _NEVER_FIRST or before in _NEVER_LAST:
        return False
    return _is_wide(before) or _is_wide(after) or starts_piece(before, after)


@dataclass(frozen=True, slots=True)
class Break:
    """A place before `index` where a line may end, `n_columns` from its beginning."""

    index: int
    n_columns: int
    is_space: bool
    is_after_clause: bool


def best_break(breaks: Sequence[Break], max_columns: int) -> Break | None:
    """Return where to end a line, of all places in order at which it fits.

    The last one, or between letters without a space the last one after punctuation, if
    that leaves the line at least half full.
    """
    if not breaks:
        return None
    last = breaks[-1]
    if last.is_space:
        return last
    for place in reversed(breaks):
        if place.is_after_clause and 2 * place.n_columns >= max_columns:
            return place
    return last


def is_joined(char: str) -> bool:
    """Return whether `char` is drawn onto the character before it."""
    return char == _ZERO_WIDTH_JOINER or unicodedata.category(char) in ("Mn", "Me")


def ends_sentence(text: str) -> bool:
    """Return whether text ends with the sign that ends a sentence."""
    return last_sign(text) in _SENTENCE_ENDS


def ends_clause(text: str) -> bool:
    """Return whether text ends with punctuation, of a sentence or within one."""
    return last_sign(text) in _SENTENCE_ENDS | _CLAUSE_ENDS


def last_sign(text: str) -> str:
    """Return the last character of text that is no closing bracket or quotation mark."""
    return text.rstrip(_CLOSING)[-1:]


def columns(text: str) -> int:
    """Return the width of text: Chinese, Japanese, Korean letters and emoji count two."""
    return sum(
        0 if unicodedata.category(char)[0] == "M" else 2 if _is_wide(char) else 1
        for char in text
    )


def printable(text: str) -> str:
    """Return the text on one line, without control characters, which a terminal obeys.

    Joiners stay: Persian, Hindi and emoji are written with them.
    """
    return "".join(
        " " if char in "\n\t" else char
        for char in text
        if char in "\n\t" or not _is_control(char)
    )


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF"
