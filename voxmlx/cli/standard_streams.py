"""Standard streams that are closed at the start or lost on the way."""

import errno
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TextIO, cast

__all__ = ["robust_standard_streams"]

# A terminal whose window is closed fails with one of these.
_LOST = (errno.EIO, errno.ENXIO, errno.EBADF)


@contextmanager
def robust_standard_streams() -> Generator[None, None, None]:
    """Let a command run on without a standard stream, until the context ends.

    A closed descriptor is opened on /dev/null: a file of ours must not get number 0,
    1 or 2. A closed standard input or output stays None in `sys`, so that a command
    can say that it needs one. What is written to a terminal that has gone is dropped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the closed one.
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    if sys.stderr is None:
        # Never closed: it lives as long as the interpreter's own stream would.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    sys.stdout = _surviving(sys.stdout)
    sys.stderr = _surviving(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before[0], before[1] or sys.stderr


def _surviving(stream: TextIO | None) -> TextIO:
    """The stream itself, or one in front of it if it is a terminal."""
    if stream is None or not stream.isatty():
        return cast(TextIO, stream)
    return cast(TextIO, _Terminal(stream))


class _Terminal:
    """A terminal's text stream that goes on in silence when the terminal is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._replace(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._replace(error)
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _replace(self, error: OSError) -> None:
        """Put /dev/null in the terminal's place, or raise what is another trouble."""
        if error.errno not in _LOST:
            raise error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
