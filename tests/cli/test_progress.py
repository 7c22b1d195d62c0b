"""The progress bar: on terminals, for long sound, and nowhere else."""

import io
import sys

import numpy as np
import pytest
from rich.progress import Progress

from voxmlx.cli import progress
from voxmlx.cli.progress import SoundProgress, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def render(
    monkeypatch: pytest.MonkeyPatch,
    stderr: io.StringIO,
    *,
    name: str = "talk.wav",
    duration_s: float | None = 3600.0,
    is_hidden: bool = False,
) -> str:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    ten_minutes = np.zeros(16_000 * 600, np.float32)
    with SoundProgress(name, duration_s, is_hidden=is_hidden) as shown:
        assert sum(1 for _ in shown.follow(iter([ten_minutes] * 2))) == 2
    return stderr.getvalue()


def test_a_terminal_sees_time_heard_and_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = render(monkeypatch, Terminal())
    assert "talk.wav" in shown
    assert "20:00 / 1:00:00" in shown
    assert "x real time" in shown


def test_the_time_left_is_that_of_the_speed_so_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """20 of 60 minutes heard in 2 minutes of a clock: 10 times real time, 4:00 left."""
    column = progress.TimeHeard()
    bar = Progress(column)
    task_id = bar.add_task("talk.wav", total=3600.0, completed=1200)
    (task,) = bar.tasks
    assert task.id == task_id
    assert task.start_time is not None
    start = task.start_time
    monkeypatch.setattr(progress.time, "monotonic", lambda: start + 120.0)
    assert str(column.render(task)) == "20:00 / 1:00:00  10.0x real time, 4:00 left"


def test_sound_of_unknown_length_has_no_total(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = render(monkeypatch, Terminal(), duration_s=None)
    assert "20:00" in shown
    assert "/" not in shown
    assert "left" not in shown


def test_a_name_with_brackets_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "[bold]talk[/].wav" in render(
        monkeypatch, Terminal(), name="[bold]talk[/].wav"
    )


def test_a_pipe_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert render(monkeypatch, io.StringIO()) == ""


def test_a_short_file_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert render(monkeypatch, Terminal(), duration_s=29.0) == ""


def test_a_hidden_bar_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert render(monkeypatch, Terminal(), is_hidden=True) == ""


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, "0:00"), (59.99, "0:59"), (61.0, "1:01"), (28_800.0, "8:00:00")],
)
def test_a_clock_counts_minutes_then_hours(seconds: float, expected: str) -> None:
    assert clock(seconds) == expected
