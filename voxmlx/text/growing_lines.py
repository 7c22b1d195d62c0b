"""Labelled lines of several channels: those that are complete, and those that grow."""

import math
from collections import deque
from collections.abc import Sequence

from voxmlx.events import ChannelEvent, DraftChanged, Word, WordFinal
from voxmlx.text.split_writers import LIVE_UNKNOWN_MS, MergedSegments
from voxmlx.text.transcript import Segment, text_of

__all__ = ["GrowingLines"]


class GrowingLines:
    """Lines as `Anna: how are you`, one at a time for each channel.

    A line that is complete comes out once, in order of time. What holds words that are
    not complete is bounded by the length of a segment.
    """

    def __init__(self, labels: Sequence[str], *, has_drafts: bool = True) -> None:
        self._labels = labels
        self._has_drafts = has_drafts
        self._merged = MergedSegments(len(labels), LIVE_UNKNOWN_MS)
        # Of each channel, the words of no complete line, and the draft.
        self._words: list[deque[Word]] = [deque() for _ in labels]
        self._drafts = [""] * len(labels)
        self.has_changed = False
        """Whether the last event changed anything that is shown."""

    def push(self, event: ChannelEvent) -> list[str]:
        """Take the next event; return the lines that it makes complete."""
        match event.event:
            case WordFinal(word=word):
                self._words[event.channel - 1].append(word)
                self.has_changed = True
            case DraftChanged(text=text) if self._has_drafts:
                self._drafts[event.channel - 1] = text
                self.has_changed = True
            case _:
                self.has_changed = False
        lines = self._complete(self._merged.push(event))
        self.has_changed = self.has_changed or bool(lines)
        return lines

    def flush(self) -> list[str]:
        """Return the lines that are left, as they are."""
        return self._complete(self._merged.flush())

    def growing(self) -> list[tuple[str, str]]:
        """Return pairs of a line so far and its draft, in order of their starts."""
        starts = [
            (words[0].start_ms if words else math.inf, channel)
            for channel, words in enumerate(self._words)
            if words or self._drafts[channel].strip()
        ]
        lines: list[tuple[str, str]] = []
        for _, channel in sorted(starts):
            words, draft = self._words[channel], self._drafts[channel]
            text = text_of(tuple(words)) if words else ""
            draft = draft if words else draft.lstrip()
            lines.append((f"{self._labels[channel]}: {text}", draft))
        return lines

    def _complete(self, segments: Sequence[tuple[int, Segment]]) -> list[str]:
        lines: list[str] = []
        for channel, segment in segments:
            for _ in segment.words:
                self._words[channel].popleft()
            lines.append(f"{self._labels[channel]}: {segment.text}")
        return lines
