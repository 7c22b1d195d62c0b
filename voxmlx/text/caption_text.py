"""The last words of one stream or several as lines, and the draft behind them."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from voxmlx.events import (
    DraftChanged,
    Event,
    Finished,
    SoundWarning,
    TextDelta,
    WordFinal,
)
from voxmlx.text.growing_lines import GrowingLines
from voxmlx.text.line_breaks import printable
from voxmlx.text.split_writers import SplitEvent

__all__ = ["PARAGRAPH_MS", "CaptionText", "ShownText", "SplitCaptionText"]

E_contra = TypeVar("E_contra", contravariant=True)

PARAGRAPH_MS = 2000
"""A silence of this length begins a new paragraph."""

# Some two minutes of speech. A paragraph that is longer ends at its next word, or
# where a text has no spaces, at twice the length.
_PARAGRAPH_CHARS = 1000

# What any display shows at once.
_MAX_CHARS = 4000


class ShownText(Protocol[E_contra]):
    """The text that displays show, of one stream or of several."""

    text: str
    draft: str

    def push(self, events: Sequence[E_contra], /) -> bool: ...


class CaptionText:
    """The text that displays show of a stream, of bounded length.

    `text` has a line for each paragraph. Only its end grows, and whole paragraphs go at
    its beginning, so lines that were wrapped stay as they are. `draft` follows it.
    """

    def __init__(self, *, has_final_words: bool = False) -> None:
        """With `has_final_words` the text is as a dictionary has written it."""
        self.text = self.draft = ""
        self._has_final_words = has_final_words
        self._text_ms = 0
        self._n_in_paragraph = 0

    def push(self, events: Sequence[Event], /) -> bool:
        """Take the next events; return whether there is something else to show."""
        before = self.text, self.draft
        for event in events:
            match event:
                case WordFinal(word, time_ms) if self._has_final_words:
                    self._add(word.lead + word.text, time_ms)
                case TextDelta(text, time_ms) if not self._has_final_words:
                    self._add(text, time_ms)
                case DraftChanged(text) if not self._has_final_words:
                    self.draft = printable(text)
                case Finished():
                    self.draft = ""
                case _:
                    pass
        return (self.text, self.draft) != before

    def _add(self, text: str, time_ms: int) -> None:
        text = printable(text)
        is_new = time_ms - self._text_ms > PARAGRAPH_MS
        self._text_ms = time_ms
        n_over = self._n_in_paragraph - _PARAGRAPH_CHARS
        is_long = n_over > (0 if text.startswith(" ") else _PARAGRAPH_CHARS)
        if self.text and (is_new or is_long):
            self.text += "\n"
            self._n_in_paragraph = 0
        if not self._n_in_paragraph:
            text = text.lstrip()
        self.text += text
        self._n_in_paragraph += len(text)
        self.text = _shortened(self.text)


class SplitCaptionText:
    """The same of several channels: a labelled line for each utterance.

    Lines are in order of time. Those of who is still speaking are the last ones, and
    grow; the draft is the last one's.
    """

    def __init__(self, labels: Sequence[str], *, has_final_words: bool = False) -> None:
        self.text = self.draft = ""
        self._complete = ""
        self._lines = GrowingLines(labels, has_drafts=not has_final_words)

    def push(self, events: Sequence[SplitEvent], /) -> bool:
        """Take the next events; return whether there is something else to show."""
        before = self.text, self.draft
        for event in events:
            if isinstance(event, SoundWarning):
                continue
            for line in self._lines.push(event):
                self._complete = _shortened(f"{self._complete}{printable(line)}\n")
        growing = self._lines.growing()
        lines = [printable(text) for text, _ in growing]
        self.text = (self._complete + "\n".join(lines)).rstrip("\n")
        self.draft = printable(growing[-1][1]) if growing else ""
        return (self.text, self.draft) != before


def _shortened(text: str) -> str:
    """Return the text without the lines that no display shows any more."""
    while len(text) > _MAX_CHARS and "\n" in text:
        text = text.partition("\n")[2]
    return text
