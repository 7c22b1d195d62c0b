"""Starts a command: Ctrl-C while its modules load ends it without a traceback."""

import os
import signal
from functools import partial
from importlib import import_module
from types import FrameType

__all__ = [
    "align",
    "any_command",
    "convert",
    "doctor",
    "let_interrupt",
    "live",
    "serve",
    "start",
    "transcribe",
]


def start(module: str) -> int:
    """Import a command's module and run its `main`; return the exit status.

    Loading takes up to some seconds. Nothing is begun meanwhile, so Ctrl-C ends the
    process at once with status 130. From `let_interrupt` on it raises KeyboardInterrupt
    again. A SIGINT that is ignored stays so: a shell asks for it in the background.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    return import_module(module).main()


def let_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from now on, for who catches it."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: FrameType | None) -> None:
    # An exception would be lost where Python imports within a callback.
    os._exit(128 + signal.SIGINT)


# What the installed scripts call.
any_command = partial(start, "voxmlx.__main__")
live = partial(start, "voxmlx.live.__main__")
transcribe = partial(start, "voxmlx.transcribe")
align = partial(start, "voxmlx.align")
serve = partial(start, "voxmlx.serve.__main__")
doctor = partial(start, "voxmlx.doctor.__main__")
convert = partial(start, "voxmlx.convert.__main__")
