"""Captions of several channels with their labels: on a terminal, or as plain lines."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from voxmlx.cli.outputs import StandardOutput
from voxmlx.cli.progress import clock
from voxmlx.config import AUDIO_TOKEN_MS
from voxmlx.events import (
    ChannelEvent,
    DraftChanged,
    SoundWarning,
    Word,
    WordFinal,
)
from voxmlx.live.display import (
    FIGURES_EVERY_S,
    REDRAW_EVERY_S,
    fitting,
    level_bar,
    with_draft,
)
from voxmlx.live.stream_metrics import StreamMetrics
from voxmlx.live.wrap import Wrapper
from voxmlx.text.split_writers import (
    LIVE_UNKNOWN_MS,
    MergedSegments,
    SplitEvent,
    SplitText,
)
from voxmlx.text.transcript import Segment, text_of

__all__ = ["PlainSplitDisplay", "TerminalSplitDisplay"]


class PlainSplitDisplay:
    """A line for each segment on standard output, in order; notices on stderr.

    A line is there at its end, or 3 s after its beginning if that is later. A context
    manager.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._writer = SplitText(labels, LIVE_UNKNOWN_MS)

    def __enter__(self) -> Self:
        self._output = StandardOutput().__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._output.write(self._writer.end())
        self._output.__exit__(*raised)

    def on_audio(self, channel: int, samples: np.ndarray, /) -> None:
        del channel, samples

    def on_events(self, events: Sequence[SplitEvent], /) -> None:
        for event in events:
            if isinstance(event, SoundWarning):
                self.notice(f"warning: {event.message}")
            self._output.write(self._writer.feed(event))

    def on_tick(self, metrics: Sequence[StreamMetrics], /) -> None:
        del metrics

    def notice(self, sentence: str, /) -> None:
        sys.stderr.write(f"voxmlx: {sentence}\n")
        sys.stderr.flush()


class TerminalSplitDisplay:
    """Labelled lines that grow word by word, one for each channel, above a status line.

    A line that is complete goes to the terminal's own scroll-back, in order of time, and
    stays there. What is not certain yet stands dim behind the words, and is redrawn in
    place. A context manager.
    """

    def __init__(
        self,
        labels: Sequence[str],
        delay_ms: int,
        *,
        has_drafts: bool = True,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._labels = labels
        self._delay_ms = delay_ms
        self._has_drafts = has_drafts
        self._console = console or Console()
        self._now = now
        self._merged = MergedSegments(len(labels), LIVE_UNKNOWN_MS)
        # Of each channel, the words that are not in the scroll-back, and the draft.
        self._words: list[deque[Word]] = [deque() for _ in labels]
        self._drafts = [""] * len(labels)
        self._fields: list[str] = []
        self._figures: list[str] = []
        self._figures_at = self._status_at = -1e9
        self._live = Live(
            console=self._console, auto_refresh=False, vertical_overflow="visible"
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._print(self._merged.flush())
        self._live.update(Text(""), refresh=True)
        self._live.stop()

    def on_audio(self, channel: int, samples: np.ndarray, /) -> None:
        del channel, samples

    def on_events(self, events: Sequence[SplitEvent], /) -> None:
        has_text = False
        for event in events:
            if isinstance(event, SoundWarning):
                self.notice(f"warning: {event.message}")
                continue
            has_text = self._note(event) or has_text
            segments = self._merged.push(event)
            self._print(segments)
            has_text = has_text or bool(segments)
        if has_text:
            self._draw()

    def on_tick(self, metrics: Sequence[StreamMetrics], /) -> None:
        now = self._now()
        if now - self._figures_at > FIGURES_EVERY_S:
            self._figures_at = now
            figures = [one.figures() for one in metrics]
            slowest = min(figures, key=lambda one: one.tokens_per_s)
            self._figures = [
                clock(max(one.heard_s for one in figures)),
                f"{slowest.tokens_per_s:.0f} tok/s of {1000 / AUDIO_TOKEN_MS:g}",
                f"{slowest.step_p50_ms:.0f}/{slowest.step_p95_ms:.0f} ms",
                f"{slowest.peak_memory_mb:.0f} MB",
                f"delay {self._delay_ms} ms",
            ]
        if now - self._status_at > REDRAW_EVERY_S:
            self._status_at = now
            sources = [
                f"{label} {level_bar(one.level_db)} lag {one.lag_s:.1f} s"
                for label, one in zip(self._labels, metrics, strict=True)
            ]
            self._fields = [*sources, *self._figures]
            self._draw()

    def notice(self, sentence: str, /) -> None:
        self._console.print(Text(f"[{sentence}]", style="yellow"))

    def _note(self, event: ChannelEvent) -> bool:
        """Keep what an event says for the lines that grow; return whether it did."""
        match event.event:
            case WordFinal(word=word):
                self._words[event.channel - 1].append(word)
            case DraftChanged(text=text) if self._has_drafts:
                self._drafts[event.channel - 1] = text
            case _:
                return False
        return True

    @property
    def _width(self) -> int:
        return max(2, self._console.width)

    def _print(self, segments: Sequence[tuple[int, Segment]]) -> None:
        lines: list[str] = []
        for channel, segment in segments:
            for _ in segment.words:
                self._words[channel].popleft()
            wrapper = Wrapper()
            lines += wrapper.feed(self._head(channel) + segment.text, self._width)
            lines += wrapper.end_paragraph()
        for line in lines:
            self._console.print(Text(line), no_wrap=True, overflow="ignore", crop=False)

    def _head(self, channel: int) -> str:
        return f"{self._labels[channel]}: "

    def _draw(self) -> None:
        self._live.update(self._area(), refresh=True)

    def _area(self) -> Group:
        """Return what is redrawn: the lines that grow, and the status."""
        status = fitting(self._fields, self._width - 1)
        # What is above the top of the window could not be redrawn.
        lines = self._lines()[-max(1, self._console.height - 2) :]
        return Group(*lines, Text(status, style="dim", no_wrap=True))

    def _lines(self) -> list[Text]:
        """Return the lines that grow, in order of their starts."""
        lines: list[Text] = []
        starts = [
            (words[0].start_ms if words else math.inf, channel)
            for channel, words in enumerate(self._words)
            if words or self._drafts[channel].strip()
        ]
        for _, channel in sorted(starts):
            words, draft = self._words[channel], self._drafts[channel]
            wrapper = Wrapper()
            text = text_of(tuple(words)) if words else ""
            full = wrapper.feed(self._head(channel) + text, self._width)
            lines += [Text(line, no_wrap=True) for line in full]
            draft = draft if words else draft.lstrip()
            lines += with_draft(wrapper, draft, self._width)
        return lines
