"""A progress bar for long files, on a terminal."""

import sys
import time
from collections.abc import Iterator
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from voxmlx.config import SAMPLE_RATE

__all__ = ["SoundProgress", "TimeHeard", "clock"]

# Shorter files are done before a bar says anything.
_LONG_S = 30.0


class SoundProgress:
    """A bar on stderr: time heard of the total, speed, and time left.

    A context manager. Shows nothing when stderr is no terminal, when `is_hidden`,
    and for sound known to be short. The bar vanishes at the end.
    """

    def __init__(
        self, name: str, duration_s: float | None, *, is_hidden: bool = False
    ) -> None:
        """`duration_s` is None when the length of the sound is unknown."""
        self._name = name
        self._duration_s = duration_s
        is_short = duration_s is not None and duration_s < _LONG_S
        is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._is_shown = is_terminal and not is_hidden and not is_short

    def __enter__(self) -> Self:
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeHeard(),
            console=Console(stderr=True),
            transient=True,
            disable=not self._is_shown,
        )
        self._task = self._bar.add_task(self._name, total=self._duration_s)
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def follow(self, pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass 16 kHz pieces on, and count each once its successor is asked for."""
        for piece in pieces:
            yield piece
            self._bar.advance(self._task, len(piece) / SAMPLE_RATE)


class TimeHeard(ProgressColumn):
    """`12:05 / 1:00:00  8.4x real time, 5:42 left`: heard, total, speed, time left."""

    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f" / {clock(task.total)}"
        speed = ""
        if task.start_time is not None and task.completed > 0:
            passed_s = max(time.monotonic() - task.start_time, 1e-3)
            times = task.completed / passed_s
            speed = f"  {times:.1f}x real time"
            if task.total is not None:
                left_s = max(task.total - task.completed, 0.0) / times
                speed += f", {clock(round(left_s))} left"
        return Text(f"{clock(task.completed)}{total}{speed}")


def clock(seconds: float) -> str:
    """Seconds as m:ss, or h:mm:ss from an hour on."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minute:02}:{second:02}"
    return f"{minute}:{second:02}"
