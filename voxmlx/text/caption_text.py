"""The last words of a stream as paragraphs, and the draft behind them."""

from collections.abc import Sequence

from voxmlx.events import DraftChanged, Event, Finished, TextDelta, WordFinal

__all__ = ["CaptionText"]

# A silence of this length begins a new paragraph.
_PARAGRAPH_MS = 2000

# Some two minutes of speech. A paragraph that is longer ends at its next word, or
# where a text has no spaces, at twice the length.
_PARAGRAPH_CHARS = 1000

# What any display shows at once.
_MAX_CHARS = 4000


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

    def push(self, events: Sequence[Event]) -> bool:
        """Take the next events; return whether there is something else to show."""
        before = self.text, self.draft
        for event in events:
            match event:
                case WordFinal(word, time_ms) if self._has_final_words:
                    self._add(word.lead + word.text, time_ms)
                case TextDelta(text, time_ms) if not self._has_final_words:
                    self._add(text, time_ms)
                case DraftChanged(text) if not self._has_final_words:
                    self.draft = _on_one_line(text)
                case Finished():
                    self.draft = ""
                case _:
                    pass
        return (self.text, self.draft) != before

    def _add(self, text: str, time_ms: int) -> None:
        text = _on_one_line(text)
        is_new = time_ms - self._text_ms > _PARAGRAPH_MS
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
        while len(self.text) > _MAX_CHARS and "\n" in self.text:
            self.text = self.text.partition("\n")[2]


def _on_one_line(text: str) -> str:
    """Return the text with its control characters as spaces."""
    return "".join(c if c.isprintable() else " " for c in text)
