"""Signals that end a command: from the keyboard, a closed window, or another process."""

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = [
    "Interrupted",
    "Interruption",
    "ended_by_first_signal",
    "ending_signals",
    "ignore_ending_signals",
]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal has ended the command; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ending_signals(handle: Callable[[int], None]) -> Generator[None, None, None]:
    """Call `handle` with the number of each SIGINT, SIGTERM and SIGHUP.

    A SIGHUP that is ignored at the start stays ignored: nohup asks for it. Outside the
    main thread, where Python allows no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {
        number: signal.getsignal(number)
        for number in _ENDING
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        for number in previous:
            signal.signal(number, lambda number, _: handle(number))
        yield
    finally:
        for number, handler in previous.items():
            # Signals that are ignored by now stay so: the command is about to end.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, handler)


def ignore_ending_signals() -> None:
    """Ignore SIGINT, SIGTERM and SIGHUP from now on: files are being completed."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def ended_by_first_signal(stop: Callable[[], None]) -> Generator[None, None, None]:
    """Call `stop` at the first SIGINT, SIGTERM or SIGHUP; the second raises Interrupted.

    More are ignored until the process has ended: files are being closed.
    """
    has_come = False

    def handle(number: int) -> None:
        nonlocal has_come
        if has_come:
            ignore_ending_signals()
            raise Interrupted(number)
        has_come = True
        stop()

    with ending_signals(handle):
        try:
            yield
        finally:
            if has_come:
                ignore_ending_signals()


class Interruption:
    """Raises `Interrupted` in the main thread at a signal, but never in `held`."""

    def __init__(self) -> None:
        self._is_held = False
        self._number: int | None = None

    @contextmanager
    def watch(self) -> Generator[None, None, None]:
        """Handle signals in this context. The first one ends it, more are ignored."""
        with ending_signals(self._handle):
            yield

    @contextmanager
    def held(self) -> Generator[None, None, None]:
        """Let what is inside finish before a signal is obeyed."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._number is not None:
            raise Interrupted(self._number)

    def _handle(self, number: int) -> None:
        ignore_ending_signals()
        self._number = number
        if not self._is_held:
            raise Interrupted(number)
