"""Captions of several channels with their labels: on a terminal, or as plain lines."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from voxmlx.cli.outputs import StandardOutput
from voxmlx.cli.progress import clock
from voxmlx.config import AUDIO_TOKEN_MS
from voxmlx.events import SoundWarning
from voxmlx.live.display import (
    FIGURES_EVERY_S,
    REDRAW_EVERY_S,
    fitting,
    level_bar,
    with_draft,
)
from voxmlx.live.stream_metrics import StreamMetrics
from voxmlx.live.wrap import Wrapper
from voxmlx.text.growing_lines import GrowingLines
from voxmlx.text.split_writers import LIVE_UNKNOWN_MS, SplitEvent, SplitText

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
        self._console = console or Console()
        self._now = now
        self._growing = GrowingLines(labels, has_drafts=has_drafts)
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
        self._print(self._growing.flush())
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
            self._print(self._growing.push(event))
            has_text = has_text or self._growing.has_changed
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

    @property
    def _width(self) -> int:
        return max(2, self._console.width)

    def _print(self, lines: Sequence[str]) -> None:
        for complete in lines:
            wrapper = Wrapper()
            wrapped = wrapper.feed(complete, self._width)
            for line in [*wrapped, *wrapper.end_paragraph()]:
                self._console.print(
                    Text(line), no_wrap=True, overflow="ignore", crop=False
                )

    def _draw(self) -> None:
        status = fitting(self._fields, self._width - 1)
        # What is above the top of the window could not be redrawn.
        lines = self._lines()[-max(1, self._console.height - 2) :]
        self._live.update(
            Group(*lines, Text(status, style="dim", no_wrap=True)), refresh=True
        )

    def _lines(self) -> list[Text]:
        """Return the lines that grow, in order of their starts."""
        lines: list[Text] = []
        for text, draft in self._growing.growing():
            wrapper = Wrapper()
            full = wrapper.feed(text, self._width)
            lines += [Text(line, no_wrap=True) for line in full]
            lines += with_draft(wrapper, draft, self._width)
        return lines
