"""A progress bar for each file that is being sent, on a terminal."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

__all__ = ["UploadProgress"]


class UploadProgress:
    """Bars on stderr: how much of each file is sent, and which ones are decoded there.

    A context manager. Shows nothing where stderr is no terminal. The bars vanish at
    the end.
    """

    def __init__(self) -> None:
        self._is_shown = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> Self:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            console=Console(stderr=True),
            transient=True,
            disable=not self._is_shown,
        )
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    @contextmanager
    def file(self, name: str) -> Generator[Callable[[int, int], None]]:
        """Show a file; the function takes bytes sent and bytes in all. From any thread."""
        task = self._bars.add_task(name, total=None, state="")

        def sent(n_bytes: int, n_total: int) -> None:
            state = "waiting for its text" if n_bytes == n_total else ""
            self._bars.update(task, completed=n_bytes, total=n_total, state=state)

        try:
            yield sent
        finally:
            self._bars.remove_task(task)

    def notice(self, sentence: str) -> None:
        """Write a sentence to stderr, above the bars. From any thread."""
        if self._is_shown:
            self._bars.console.print(
                f"voxmlx: {sentence}", markup=False, highlight=False, soft_wrap=True
            )
        elif sys.stderr is not None:
            sys.stderr.write(f"voxmlx: {sentence}\n")
            sys.stderr.flush()
