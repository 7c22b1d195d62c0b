"""Bars on a terminal: how far a conversion is, and how long it still takes."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from voxmlx.config import AUDIO_TOKEN_MS

from .calibration import OnHeard
from .disk import amount
from .output import Advance
from .plan import Plan

__all__ = ["progress", "steps"]


@contextmanager
def steps(what: str) -> Generator[Callable[[int, int], None]]:
    """Show which step of how many is done, on a terminal."""
    # The stream of now: mlx_lm's own output is caught while it learns.
    with Progress(
        TextColumn(what + " {task.completed} of {task.total}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda n, of_all: bar.update(task, completed=n, total=of_all)


@contextmanager
def progress(plan: Plan) -> Generator[tuple[Advance, OnHeard]]:
    """A bar of source bytes; while GPTQ listens, one of that too."""
    total = sum(tensor.n_bytes for tensor in plan.files.tensors.values())
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[done]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    n_done = 0
    with bar:
        task = bar.add_task(f"converting to {plan.recipe.name}", total=total, done="")
        listening = bar.add_task("listening", total=None, done="", visible=False)

        def advance(n: int) -> None:
            nonlocal n_done
            n_done += n
            of_all = f"{amount(n_done)} of {amount(total)}"
            bar.update(task, completed=n_done, done=of_all)

        def on_heard(n: int, of_all: int) -> None:
            seconds = (
                f"{n * AUDIO_TOKEN_MS // 1000} of {of_all * AUDIO_TOKEN_MS // 1000} s"
            )
            is_over = n == of_all
            bar.update(listening, completed=n, total=of_all, done=seconds)
            bar.update(listening, visible=not is_over)

        yield advance, on_heard
