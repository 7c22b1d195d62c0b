"""What the commands share: model arguments, error lines, exit statuses."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from voxmlx import demo
from voxmlx.checkpoint import Checkpoint, load
from voxmlx.config import LEGAL_DELAYS_MS
from voxmlx.errors import VoxmlxError

__all__ = [
    "DEFAULT_DELAY_MS",
    "DEFAULT_MODEL",
    "add_model_arguments",
    "add_version_argument",
    "load_model",
    "report_error",
    "run_command",
]

DEFAULT_MODEL = "mistralai/Voxtral-Mini-4B-Realtime-2602"
DEFAULT_DELAY_MS = 480

_DISTRIBUTION = "voxmlx-realtime"

# What a shell reports for a program that SIGINT or SIGPIPE has ended.
_INTERRUPTED, _PIPE_CLOSED = 128 + 2, 128 + 13


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --model or --demo, --dtype and --delay.

    --delay is any integer here: `delay_tokens` says which are legal, so that a
    wrong one reads the same in a command as in Python.
    """
    group = parser.add_argument_group("model")
    models = group.add_mutually_exclusive_group()
    models.add_argument(
        "--model",
        metavar="DIR_OR_ID",
        default=DEFAULT_MODEL,
        help="model directory, or an id on the Hugging Face Hub, downloaded at its "
        "first use (default: %(default)s)",
    )
    models.add_argument(
        "--demo",
        dest="model",
        action="store_const",
        const=demo.NAME,
        help="the tiny model that comes with the package: digits, times, weather and "
        "household commands in English, without a download; as --model demo",
    )
    group.add_argument(
        "--dtype",
        choices=("auto", "float16", "bfloat16", "float32"),
        default="auto",
        help="arithmetic of the model; auto picks the fastest of this machine "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--delay",
        metavar="MS",
        type=int,
        default=DEFAULT_DELAY_MS,
        help="how far text lags behind the sound: more is more accurate. "
        f"{LEGAL_DELAYS_MS[0]} to {LEGAL_DELAYS_MS[-2]} in steps of 80, or "
        f"{LEGAL_DELAYS_MS[-1]} (default: %(default)s)",
    )


def load_model(arguments: argparse.Namespace) -> Checkpoint:
    """The model that --model and --dtype ask for. Raises CheckpointError."""
    return load(arguments.model, arguments.dtype)


def add_version_argument(parser: argparse.ArgumentParser) -> None:
    """Add --version, which prints the package's version and exits."""
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the version and exit"
    )


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(
        self, parser: argparse.ArgumentParser, *_: object, **__: object
    ) -> NoReturn:
        # A local import: it costs more than all else a command does before its work.
        from importlib import metadata

        try:
            version = metadata.version(_DISTRIBUTION)
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        sys.stdout.write(f"voxmlx {version}\n")
        parser.exit()


def report_error(error: VoxmlxError) -> None:
    """Write the error to stderr as one line."""
    line = str(error).replace("\n", " ")
    sys.stderr.write(f"voxmlx: error: {line}\n")
    sys.stderr.flush()


def run_command(command: Callable[[], int]) -> int:
    """Run a command; its exit status, or that of the error that ended it.

    A VoxmlxError becomes one line on stderr and 1, Ctrl-C 130, a reader that
    closed standard output 141. Other exceptions are mistakes of ours and pass.
    """
    try:
        status = command()
        if sys.stdout is not None:  # closed by who started us
            sys.stdout.flush()
    except VoxmlxError as error:
        report_error(error)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more when it exits.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    return status
