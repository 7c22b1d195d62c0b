"""A stream's text so far, bounded."""

from dataclasses import dataclass, field

__all__ = ["TextBuffer"]


@dataclass(slots=True)
class TextBuffer:
    """A stream's text for the message that repeats it whole.

    The one thing here that grows with a stream, by some 15 bytes a second: what is
    longer than `max_chars` keeps its end.
    """

    max_chars: int = 4_000_000
    _parts: list[str] = field(default_factory=list[str])
    _n_chars: int = 0

    @property
    def is_empty(self) -> bool:
        """Return whether there is no text."""
        return self._n_chars == 0

    def add(self, text: str) -> None:
        self._parts.append(text)
        self._n_chars += len(text)
        if self._n_chars > 2 * self.max_chars:
            kept = "".join(self._parts)[-self.max_chars :]
            self._parts, self._n_chars = [kept], len(kept)

    def pop(self) -> str:
        """Return the whole text, and start again with none."""
        text = "".join(self._parts)[-self.max_chars :]
        self._parts, self._n_chars = [], 0
        return text
