"""The draft's text that follows what is confirmed.

Two streams of text speak of the same sound: the confirmed one, and the draft, which is
ahead and may be wrong. Each confirmed word takes the draft's words up to its own:

    same      a word of the same letters within 0.6 s is the confirmed one
    other     else all words that the draft heard up to then are

A word that is only half confirmed leaves the draft its other half. A draft word that
nothing confirmed within 0.6 s was wrong, and goes.

Example: confirmed is "turn on the", the draft " turn on the heating now". "the" takes
three words, so " heating now" follows. " heat" is confirmed: "ing now" follows.
"""

from collections import deque
from dataclasses import dataclass

from voxmlx.config import AUDIO_TOKEN_MS, STREAMING_PAD_ID
from voxmlx.text.tokenizer import TextStream, Tokenizer
from voxmlx.text.words import MAX_WORD_CHARS, SETTLE_TOKENS, letters_of, starts_piece

__all__ = ["DraftText", "rest_of_draft"]

# How far apart, in audio tokens, both streams may hear one word: its text is written
# when the words before it are.
_NEAR_TOKENS = 8
# What a decoder that writes without end may pile up.
_MAX_WORDS = 64


@dataclass(slots=True)
class _DraftWord:
    """A word, the white space before it, and the audio token that began it."""

    lead: str
    text: str
    index: int

    @property
    def letters(self) -> str:
        return letters_of(self.text)


def _is_same(drafted: _DraftWord, confirmed: _DraftWord, *, is_whole: bool) -> bool:
    """Whether both are one word, or the confirmed one the beginning of it."""
    if confirmed.letters:
        a, b = drafted.letters, confirmed.letters
    else:
        a, b = drafted.text, confirmed.text
    return a == b if is_whole else a.startswith(b)


def rest_of_draft(draft: str, confirmed: str) -> str:
    """Return what of a draft follows the text that is confirmed next.

    It needs no ids: words count by their order. Where the draft has another word,
    nothing is known of what follows.
    """
    if draft.startswith(confirmed):
        return draft[len(confirmed) :]
    rest = draft
    for word in confirmed.split():
        letters = letters_of(word)
        if not letters:  # punctuation of the word before
            continue
        drafted, *_ = rest.split(maxsplit=1) or [""]
        if not letters_of(drafted).startswith(letters):
            return ""
        is_whole = letters_of(drafted) == letters
        rest = rest.lstrip()[len(drafted if is_whole else word) :]
    return rest.lstrip() if confirmed[-1:].isspace() else rest


class DraftText:
    """The text of one stream that follows what is confirmed, by a draft."""

    def __init__(self, tokenizer: Tokenizer, delay_tokens: int) -> None:
        """`delay_tokens` is the draft's delay."""
        self._stream = TextStream(tokenizer)
        # The audio token that the next id speaks about: the first ones are the prompt's.
        self._index = -1 - delay_tokens
        self._said = ""
        self._words: deque[_DraftWord] = deque(maxlen=_MAX_WORDS)
        self._lead = ""
        self._confirmed: _DraftWord | None = None  # the last word, maybe half of it
        self._confirmed_lead = ""
        self._n_pad = 0

    def push(self, token_id: int) -> None:
        """Take the draft's id of the next position; negative where it has none."""
        index = self._index
        self._index += 1
        text = self._stream.push(token_id) if token_id >= 0 else ""
        for char in text:
            if char.isspace():
                self._lead = (self._lead + char)[:MAX_WORD_CHARS]
            elif self._lead or not self._words or self._begins(self._words[-1], char):
                self._words.append(_DraftWord(self._lead, char, index))
                self._lead = ""
            else:
                self._words[-1].text += char

    def confirm(self, index: int, token_id: int, text: str) -> None:
        """Take the next confirmed id, and the text that it completed."""
        self._n_pad = self._n_pad + 1 if token_id == STREAMING_PAD_ID else 0
        if self._n_pad == SETTLE_TOKENS:
            self._take_confirmed()
        for char in text:
            if char.isspace():
                self._confirmed_lead = (self._confirmed_lead + char)[:MAX_WORD_CHARS]
            elif (
                self._confirmed is None
                or self._confirmed_lead
                or self._begins(self._confirmed, char)
            ):
                self._take_confirmed()
                self._confirmed = _DraftWord("", char, index)
                self._confirmed_lead = ""
            else:
                self._confirmed.text += char
        while self._words and self._words[0].index < index - _NEAR_TOKENS:
            self._words.popleft()

    def clear(self) -> None:
        """Forget all: everything is confirmed."""
        self._words.clear()
        self._confirmed = None

    def take_change(self) -> tuple[str | None, int]:
        """Return the text if it has changed since the last call, and its time in ms."""
        text, time_ms = self.text, max(0, self._index * AUDIO_TOKEN_MS)
        if text == self._said:
            return None, time_ms
        self._said = text
        return text, time_ms

    @property
    def text(self) -> str:
        """Return what follows the confirmed text."""
        words, rest = list(self._words), ""
        if (confirmed := self._confirmed) is not None:
            n = self._n_taken(confirmed, is_whole=False)
            if n and words[n - 1].letters.startswith(confirmed.letters):
                rest = words[n - 1].text[len(confirmed.text) :]
            words = words[n:]
        text = rest + "".join(word.lead + word.text for word in words)
        return text.lstrip() if self._confirmed_lead else text

    def _take_confirmed(self) -> None:
        """Take the draft's words up to the last confirmed one, which is whole."""
        if self._confirmed is not None:
            for _ in range(self._n_taken(self._confirmed, is_whole=True)):
                self._words.popleft()
        self._confirmed = None

    def _n_taken(self, confirmed: _DraftWord, *, is_whole: bool) -> int:
        """How many of the draft's words end with the confirmed one."""
        letters, nearest = confirmed.letters, _NEAR_TOKENS + 1
        n_taken = None
        for n, word in enumerate(self._words, 1):
            is_same = _is_same(word, confirmed, is_whole=is_whole)
            distance = abs(word.index - confirmed.index)
            if is_same and distance < nearest:
                n_taken, nearest = n, distance
        if n_taken is not None:
            return n_taken
        if not letters:  # punctuation of the word before
            return 0
        return sum(word.index <= confirmed.index + 1 for word in self._words)

    @staticmethod
    def _begins(word: _DraftWord, char: str) -> bool:
        """Whether `char` begins a word after `word`, without white space between."""
        return len(word.text) >= MAX_WORD_CHARS or starts_piece(word.text[-1], char)
