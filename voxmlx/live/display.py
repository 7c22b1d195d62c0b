"""Captions on a terminal, growing word by word over a status line; or plain text."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from voxmlx.cli.outputs import StandardOutput
from voxmlx.cli.progress import clock
from voxmlx.config import AUDIO_TOKEN_MS
from voxmlx.events import (
    DraftChanged,
    Event,
    Finished,
    SoundWarning,
    TextDelta,
    WordFinal,
)
from voxmlx.live.stream_metrics import SILENT_DB, StreamMetrics
from voxmlx.live.wrap import Wrapper
from voxmlx.text.caption_text import PARAGRAPH_MS
from voxmlx.text.formats import TxtWriter

__all__ = [
    "FIGURES_EVERY_S",
    "REDRAW_EVERY_S",
    "PlainDisplay",
    "TerminalDisplay",
    "fitting",
    "level_bar",
    "with_draft",
]

REDRAW_EVERY_S = 0.1

# Figures that need sorting are worked out anew this often.
FIGURES_EVERY_S = 1.0

_LEVEL_STEPS = " ▁▂▃▄▅▆▇█"
_LEVEL_RANGE_DB = (-60.0, -6.0)


class PlainDisplay:
    """Text alone on standard output, as it becomes final; notices on stderr.

    A context manager.
    """

    def __enter__(self) -> Self:
        self._output = StandardOutput().__enter__()
        self._writer = TxtWriter()
        self._is_line_open = False
        return self

    def __exit__(self, *raised: object) -> None:
        if self._is_line_open:  # broken off: what is said about it begins a line
            self._output.write(self._writer.end())
        self._output.__exit__(*raised)

    def on_audio(self, samples: np.ndarray, /) -> None:
        del samples

    def on_events(self, events: Sequence[Event], /) -> None:
        for event in events:
            if isinstance(event, SoundWarning):
                self.notice(f"warning: {event.message}")
            text = self._writer.feed(event)
            self._is_line_open = self._is_line_open or bool(text)
            if isinstance(event, Finished):
                text += self._writer.end()
                self._is_line_open = False
            self._output.write(text)

    def on_tick(self, metrics: StreamMetrics, /) -> None:
        del metrics

    def notice(self, sentence: str, /) -> None:
        sys.stderr.write(f"voxmlx: {sentence}\n")
        sys.stderr.flush()


class TerminalDisplay:
    """Captions that wrap and scroll, above one line of status.

    Lines that are full go to the terminal's own scroll-back and stay there; only the
    last one and the status are redrawn. Text is shown as it is decoded, or with
    `has_final_words` a moment later, as a dictionary has written it. A draft stands dim
    behind the text, and is redrawn in place; it goes nowhere else. A context manager.
    """

    def __init__(
        self,
        source_name: str,
        delay_ms: int | None,
        *,
        has_final_words: bool = False,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source_name = source_name
        self._delay_ms = delay_ms
        self._has_final_words = has_final_words
        self._console = console or Console()
        self._now = now
        self._wrapper = Wrapper()
        self._draft = ""
        self._fields: list[str] = []
        self._figures: list[str] = []
        self._figures_at = self._status_at = -1e9
        self._text_ms = 0
        self._live = Live(
            console=self._console, auto_refresh=False, vertical_overflow="visible"
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._print(self._wrapper.end_paragraph())
        self._live.update(Text(""), refresh=True)
        self._live.stop()

    def on_audio(self, samples: np.ndarray, /) -> None:
        del samples

    def on_events(self, events: Sequence[Event], /) -> None:
        has_text = False
        for event in events:
            if isinstance(event, SoundWarning):
                self.notice(f"warning: {event.message}")
            elif isinstance(event, WordFinal) and self._has_final_words:
                self._add(event.word.lead + event.word.text, event.time_ms)
                has_text = True
            elif isinstance(event, TextDelta) and not self._has_final_words:
                self._add(event.text, event.time_ms)
                # A server's next draft may come a moment later.
                self._draft = self._draft.removeprefix(event.text)
                has_text = True
            elif isinstance(event, DraftChanged) and not self._has_final_words:
                self._draft = event.text
                has_text = True
        if has_text:
            self._draw()

    def on_tick(self, metrics: StreamMetrics, /) -> None:
        now = self._now()
        if now - self._figures_at > FIGURES_EVERY_S:
            self._figures_at = now
            figures = metrics.figures()
            speed, steps = "", ""
            if figures.n_tokens:  # decoded here
                speed = f"{figures.tokens_per_s:.0f} tok/s of {1000 / AUDIO_TOKEN_MS:g}"
                steps = f"{figures.step_p50_ms:.0f}/{figures.step_p95_ms:.0f} ms"
            self._figures = [
                *([speed] if speed else []),
                clock(figures.heard_s),
                *([steps] if steps else []),
                f"{figures.peak_memory_mb:.0f} MB",
                *([f"delay {self._delay_ms} ms"] if self._delay_ms else []),
                self._source_name,
            ]
        if now - self._status_at > REDRAW_EVERY_S:
            self._status_at = now
            self._fields = [
                f"{level_bar(metrics.level_db)} lag {metrics.lag_s:.1f} s",
                *self._figures,
            ]
            self._draw()

    def notice(self, sentence: str, /) -> None:
        self._console.print(Text(f"[{sentence}]", style="yellow"))

    @property
    def _width(self) -> int:
        return max(2, self._console.width)

    def _add(self, text: str, time_ms: int) -> None:
        if time_ms - self._text_ms > PARAGRAPH_MS:
            self._print(self._wrapper.end_paragraph())
        self._text_ms = time_ms
        self._print(self._wrapper.feed(text, self._width))

    def _print(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._console.print(Text(line), no_wrap=True, overflow="ignore", crop=False)

    def _draw(self) -> None:
        # The window may be narrower now than when the text came.
        self._print(self._wrapper.feed("", self._width))
        status = fitting(self._fields, self._width - 1)
        self._live.update(
            Group(
                *with_draft(self._wrapper, self._draft, self._width),
                Text(status, style="dim", no_wrap=True),
            ),
            refresh=True,
        )


def with_draft(wrapper: Wrapper, draft: str, width: int) -> list[Text]:
    """Return the last line, with the draft dim behind it on as many lines as it takes."""
    drafted = wrapper.copy()
    lines = [*drafted.feed(draft, width), drafted.current]
    n_left = len(wrapper.current.replace(" ", ""))
    texts: list[Text] = []
    for line in lines:
        n = 0
        while n < len(line) and (n_left or line[n] == " "):
            n_left -= line[n] != " "
            n += 1
        texts.append(Text.assemble(line[:n], (line[n:], "dim"), no_wrap=True))
    return texts


def fitting(fields: Sequence[str], width: int) -> str:
    """Return as many whole fields, the first ones first, as fit into `width` cells."""
    line = ""
    for field in fields:
        longer = f"{line} · {field}" if line else field
        if cell_len(longer) > width:
            break
        line = longer
    return line


def level_bar(level_db: float) -> str:
    """Return one block that grows with the level, from quiet to nearly clipping."""
    if level_db <= SILENT_DB:
        return "∅"
    low, high = _LEVEL_RANGE_DB
    part = min(1.0, max(0.0, (level_db - low) / (high - low)))
    return _LEVEL_STEPS[round(part * (len(_LEVEL_STEPS) - 1))]
