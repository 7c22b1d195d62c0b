"""Token stream -> words, each with its time and how sure the model was."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from voxmlx.audio.energy import EnergyDetector
from voxmlx.config import AUDIO_TOKEN_MS, STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.events import TokenDecoded, Word
from voxmlx.text.confidence_map import IDENTITY, ConfidenceMap

__all__ = [
    "MAX_WORD_CHARS",
    "WordAssembler",
    "changes",
    "letters_of",
    "pieces_of",
    "starts_piece",
]

# A word ended within the 80 ms of sound that its WORD token stands for, so on
# average half an audio token before the id's time.
END_OFFSET_MS = -AUDIO_TOKEN_MS // 2
# A WORD token that had to wait for the word before to be written comes later. Over
# 116 words of two synthesisers at 480 ms, ends were 0 ms late (deviation 37) after a
# PAD token and 30 ms late after text.
WAITED_MS = 30

# PAD tokens after which a word's text is taken to be complete. Sub-words come one per
# audio token without PAD between, so one would do for what the model was
# trained on; the others allow a straggler.
SETTLE_TOKENS = 3

# Silence inside a word (the closure of a consonant) is shorter than this.
MAX_GAP_IN_WORD_MS = 150
# Without any speech in the sound, a word is taken to have lasted no longer.
MAX_SILENT_WORD_MS = 800
# How far back a word's start is looked for.
MAX_WORD_MS = 10_000

# What a decoder that writes without end may pile up before it is called words.
_MAX_OPEN = 16
MAX_WORD_CHARS = 200

# First and last of the letters of languages written without spaces.
_UNSPACED = (
    (0x0E01, 0x0E5B),  # Thai
    (0x0E81, 0x0EDF),  # Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3041, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x20000, 0x323AF),
)
# Vowels of Thai and Lao that are written before, or after, their consonant.
_BEFORE_CONSONANT = frozenset(map(chr, (*range(0xE40, 0xE45), *range(0xEC0, 0xEC5))))
_AFTER_CONSONANT = frozenset("\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3")


def _is_unspaced(char: str) -> bool:
    code = ord(char)
    return code >= 0x0E01 and any(a <= code <= z for a, z in _UNSPACED)


def _leans_back(char: str) -> bool:
    """Whether `char` belongs to the character before it."""
    kind = unicodedata.category(char)
    return (
        kind[0] == "M"
        or kind in ("Lm", "Pe", "Pf", "Po", "Pd", "Cf", "Sk")
        or char in _AFTER_CONSONANT
    )


def _leans_on(char: str) -> bool:
    """Whether `char` belongs to the character after it."""
    return unicodedata.category(char) in ("Ps", "Pi") or char in _BEFORE_CONSONANT


def starts_piece(before: str, char: str) -> bool:
    """Return whether a word of its own begins between two characters."""
    if not (_is_unspaced(before) or _is_unspaced(char)):
        return False
    return not (_leans_back(char) or _leans_on(before))


def pieces_of(text: str) -> list[str]:
    """Text without white space, cut by character where its language has no spaces.

    Marks and punctuation stay with the character they belong to; letters of other
    languages stay together. The pieces joined are the text.
    """
    pieces: list[str] = []
    for i, char in enumerate(text):
        if i == 0 or starts_piece(text[i - 1], char):
            pieces.append(char)
        else:
            pieces[-1] += char
    return pieces


def letters_of(text: str) -> str:
    """Return a text as it is compared: without its case, punctuation and white space."""
    return "".join(char for char in text.casefold() if char.isalnum())


def changes(one: Sequence[object], other: Sequence[object]) -> list[int]:
    """Return how many changes make `one` of the first 0, 1, 2, ... items of `other`.

    A change replaces an item, puts one in or leaves one out (Levenshtein).
    """
    before = list(range(len(other) + 1))
    for i, item in enumerate(one, 1):
        row = [i]
        for j, against in enumerate(other):
            row.append(
                min(before[j] + (item != against), before[j + 1] + 1, row[j] + 1)
            )
        before = row
    return before


@dataclass(frozen=True, slots=True)
class _Group:
    """What is written under one marker was heard in audio tokens first..last."""

    first: int
    last: int


@dataclass(slots=True)
class _OpenWord:
    """What may still become a longer word."""

    lead: str
    text: str
    group: _Group
    logprob: float = 0.0
    n_tokens: int = 0
    is_scored: bool = True
    last_token: int = -1

    def score(self, token: TokenDecoded) -> None:
        """Count a token that gave this word text, once however many characters."""
        if token.index == self.last_token:
            return
        self.last_token = token.index
        if token.logprob is None:
            self.is_scored = False
        else:
            self.logprob += token.logprob
            self.n_tokens += 1

    @property
    def confidence(self) -> float | None:
        if not self.is_scored or not self.n_tokens:
            return None
        return math.exp(self.logprob / self.n_tokens)


class WordAssembler:
    """Words out of one stream's ids and the text they complete, in order, once.

    A word's end is read off its marker, its start off the end of the word before
    and the sound, if an EnergyDetector that has heard it is given. What it holds
    does not grow.
    """

    def __init__(
        self,
        sound: EnergyDetector | None = None,
        confidence_map: ConfidenceMap = IDENTITY,
    ) -> None:
        self._sound = sound
        self._confidence_map = confidence_map
        self._open: list[_OpenWord] = []
        self._lead = ""
        self._group = _Group(0, 0)
        self._n_pad = 1
        self._last_end_ms = 0

    @property
    def is_settled(self) -> bool:
        """Return whether all text is out as words, and blanks have followed."""
        return not self._open and self._n_pad >= SETTLE_TOKENS

    def push(self, token: TokenDecoded, text: str) -> list[Word]:
        """The next id and the text it completed; the words this made final."""
        if token.token_id == STREAMING_PAD_ID:
            self._n_pad += 1
            return self._end_words() if self._n_pad == SETTLE_TOKENS else []
        if token.token_id == STREAMING_WORD_ID or self._n_pad:
            # While sub-words are being written, words that end must wait for their
            # marker: they may have ended anywhere since the last one.
            first = token.index if self._n_pad else self._group.last + 1
            self._group = _Group(min(first, token.index), token.index)
        self._n_pad = 0
        return [word for char in text for word in self._add(char, token)]

    def flush(self, text: str, duration_ms: int) -> list[Word]:
        """`text` ends the last word; no word ends after `duration_ms`."""
        words = [word for char in text for word in self._add(char)]
        return words + self._end_words(duration_ms)

    def _add(self, char: str, token: TokenDecoded | None = None) -> list[Word]:
        if char.isspace():
            if len(self._lead) < MAX_WORD_CHARS:
                self._lead += char
            return []
        words: list[Word] = []
        last = self._open[-1] if self._open else None
        if (
            last is None
            or self._lead
            or len(last.text) >= MAX_WORD_CHARS
            or (last.group != self._group and starts_piece(last.text[-1], char))
        ):
            is_group_over = last is not None and last.group != self._group
            if is_group_over or len(self._open) >= _MAX_OPEN:
                words = self._end_words()
            last = _OpenWord(self._lead, char, self._group)
            self._open.append(last)
            self._lead = ""
        else:
            last.text += char
            last.group = self._group  # its end was heard later than it seemed
        if token is not None:
            last.score(token)
        return words

    def _end_words(self, limit_ms: int | None = None) -> list[Word]:
        """All open words, as final ones; none ends after `limit_ms`."""
        words: list[Word] = []
        groups = [word.group for word in self._open]
        for i, word in enumerate(self._open):
            # The words of a group share its time evenly.
            n, n_after = groups.count(word.group), groups[i + 1 :].count(word.group)
            span_ms = (word.group.last + 1 - word.group.first) * AUDIO_TOKEN_MS
            end_ms = (word.group.last + 1) * AUDIO_TOKEN_MS + END_OFFSET_MS
            if word.group.first < word.group.last:
                end_ms -= WAITED_MS
            end_ms -= n_after * span_ms // n
            if limit_ms is not None:
                end_ms = min(end_ms, limit_ms)
            words += self._timed(word, max(end_ms, self._last_end_ms))
        self._open.clear()
        return words

    def _timed(self, word: _OpenWord, end_ms: int) -> list[Word]:
        start_ms = self._start_ms(end_ms)
        self._last_end_ms = end_ms
        pieces = pieces_of(word.text)
        n, span_ms = len(pieces), end_ms - start_ms
        confidence = word.confidence
        if confidence is not None:
            confidence = self._confidence_map(confidence)
        return [
            Word(
                piece,
                start_ms + span_ms * i // n,
                start_ms + span_ms * (i + 1) // n,
                confidence,
                word.lead if i == 0 else "",
            )
            for i, piece in enumerate(pieces)
        ]

    def _start_ms(self, end_ms: int) -> int:
        earliest = max(self._last_end_ms, end_ms - MAX_WORD_MS)
        onset = None
        if self._sound is not None:
            onset = self._sound.onset(earliest, end_ms, MAX_GAP_IN_WORD_MS)
        if onset is None:
            return max(earliest, end_ms - MAX_SILENT_WORD_MS)
        return onset
