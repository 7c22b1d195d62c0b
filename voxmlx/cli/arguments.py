"""Arguments, error lines and exit statuses that all commands share."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import voxmlx
from voxmlx import demo
from voxmlx.audio.channels import SPLIT, Channel, FileChannel
from voxmlx.checkpoint import Checkpoint, load
from voxmlx.cli.interruption import Interrupted
from voxmlx.cli.standard_streams import robust_standard_streams
from voxmlx.cli.start import let_interrupt
from voxmlx.config import LEGAL_DELAYS_MS, SAMPLE_RATE, delay_tokens
from voxmlx.decoding.speculation import MAX_POSITIONS
from voxmlx.errors import DelayError, VoxmlxError
from voxmlx.events import SoundWarning
from voxmlx.layouts.embedding import DEFAULT_EMBEDDING_BITS, EMBEDDING_BITS
from voxmlx.memory import limit_memory
from voxmlx.other_package import warn_of_other_package
from voxmlx.session_options import LIVE_SILENCE_BLOCK

__all__ = [
    "DEFAULT_MODEL",
    "KEY_VARIABLE",
    "MODEL_VARIABLE",
    "CommandParser",
    "add_channel_argument",
    "add_embedding_argument",
    "add_model_arguments",
    "add_raw_arguments",
    "add_silence_argument",
    "add_version_argument",
    "check_delay",
    "check_draft_delay",
    "chosen_delay_ms",
    "default_model",
    "load_model",
    "raw_rate",
    "report_error",
    "report_warning",
    "run_command",
    "whole_number",
]

DEFAULT_MODEL = "mlx-community/Voxtral-Mini-4B-Realtime-2602-4bit"

# Where a server's key is, for it and for its clients.
KEY_VARIABLE = "VOXMLX_API_KEY"

# Names another default model for every command.
MODEL_VARIABLE = "VOXMLX_MODEL"

# What a shell reports for a program that SIGINT or SIGPIPE has ended.
_INTERRUPTED, _PIPE_CLOSED = 128 + 2, 128 + 13


class CommandParser(argparse.ArgumentParser):
    """Parser of one command: options in full, and errors of one line.

    `voxmlx live --dev` is an error and no short form of `--device`: an option that
    comes later must not change what a script means.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(
            prog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )
        add_version_argument(self)

    def option_names(self) -> list[str]:
        """Return the names of all options, as they are typed."""
        return [name for action in self._actions for name in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Write what is wrong as one line to stderr, and exit with status 2."""
        line = message.replace("\n", " ")
        self.exit(2, f"voxmlx: error: {line}; see {self.prog} --help\n")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --model or --demo, --dtype, --kv-bits, --embedding-bits and --delay.

    --delay is any integer or None here: see `chosen_delay_ms` and `check_delay`.
    """
    group = parser.add_argument_group("model")
    models = group.add_mutually_exclusive_group()
    models.add_argument(
        "--model",
        metavar="DIR_OR_ID",
        default=default_model(),
        help="model directory, or id on the Hugging Face Hub; its first use downloads "
        f"it (default: the environment's {MODEL_VARIABLE}, or {DEFAULT_MODEL})",
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
        "--kv-bits",
        type=int,
        choices=(8, 16),
        default=16,
        help="bits of a remembered number: 8 halves the memory of the last eleven "
        "minutes, 0.87 to 0.45 GB of the full model (default: %(default)s)",
    )
    add_embedding_argument(group)
    group.add_argument(
        "--delay",
        metavar="MS",
        type=int,
        help="how far text lags behind the sound: more is more accurate. "
        f"{LEGAL_DELAYS_MS[0]} to {LEGAL_DELAYS_MS[-2]} in steps of 80, or "
        f"{LEGAL_DELAYS_MS[-1]} (default: what the model's tekken.json says)",
    )


def add_embedding_argument(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,  # pyright: ignore[reportPrivateUsage] -- argparse has no public name for it
) -> None:
    """Add --embedding-bits, for a model that keeps its embedding in 16 bits."""
    parser.add_argument(
        "--embedding-bits",
        type=int,
        choices=EMBEDDING_BITS,
        default=DEFAULT_EMBEDDING_BITS,
        help="bits of the tied embedding where the model keeps 16 beside quantized "
        "layers: 8 saves 0.38 GB of the default model; 16 changes nothing "
        "(default: %(default)s)",
    )


def add_raw_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --raw and --rate, for sound without a header."""
    parser.add_argument(
        "--raw",
        action="store_true",
        help="take bytes without a header for 16-bit little-endian mono samples",
    )
    parser.add_argument(
        "--rate",
        metavar="HZ",
        type=int,
        help="the same, and their sample rate; sound with a header says its own "
        f"(default: {SAMPLE_RATE})",
    )


def add_channel_argument(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,  # pyright: ignore[reportPrivateUsage] -- argparse has no public name for it
    help_text: str,
    *,
    may_split: bool = False,
) -> None:
    """Add --channel (a number from 1, mix, or with `may_split` split) and --track."""
    parser.add_argument(
        "--channel",
        metavar="N",
        type=_file_channel if may_split else _channel,
        help=help_text,
    )
    parser.add_argument(
        "--track",
        metavar="N",
        type=whole_number(1, 1000),
        help="the sound track of a film with several, from 1 (default: the one that "
        "players take)",
    )


def _file_channel(text: str) -> FileChannel:
    return SPLIT if text == SPLIT else _channel(text, "mix or split")


def _channel(text: str, others: str = "or mix") -> Channel:
    if text == "mix":
        return "mix"
    if text == SPLIT:
        raise argparse.ArgumentTypeError(
            "split is for files, and of voxmlx transcribe; choose one channel, or mix"
        )
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"{text!r} is no channel: expected a number from 1, {others}"
    )


def raw_rate(arguments: argparse.Namespace) -> int | None:
    """Return the rate that --raw and --rate give bytes without a header, if any."""
    if arguments.rate is not None:
        return arguments.rate
    return SAMPLE_RATE if arguments.raw else None


def add_silence_argument(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,  # pyright: ignore[reportPrivateUsage] -- argparse has no public name for it
) -> None:
    """Add --silence-block, as Session takes it."""
    parser.add_argument(
        "--silence-block",
        metavar="N",
        type=whole_number(1, MAX_POSITIONS),
        default=LIVE_SILENCE_BLOCK,
        help="in silence, decode up to N audio tokens of 80 ms together, so that the "
        "machine stays cool; no word comes later; 1 turns it off (default: %(default)s)",
    )


def default_model() -> str:
    """Return the model that commands take where none is named."""
    return os.environ.get(MODEL_VARIABLE) or DEFAULT_MODEL


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return an argument's type: a whole number from `least` to `most`."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least} to {most}"
            )
        return number

    return convert


def load_model(arguments: argparse.Namespace) -> Checkpoint:
    """The model that the arguments ask for. Raises CheckpointError."""
    checkpoint = load(
        arguments.model, arguments.dtype, embedding_bits=arguments.embedding_bits
    )
    limit_memory()
    return checkpoint


def check_delay(arguments: argparse.Namespace) -> None:
    """Raise DelayError for a --delay that no model has, in Session's words."""
    if arguments.delay is not None:
        delay_tokens(arguments.delay)


def check_draft_delay(
    arguments: argparse.Namespace, delay_ms: int | None = None
) -> None:
    """Raise DelayError for a --draft-delay that is no delay, or not a shorter one.

    `delay_ms` is the model's, once it is loaded.
    """
    draft_ms, delay_ms = arguments.draft_delay, arguments.delay or delay_ms
    if draft_ms is None:
        return
    delay_tokens(draft_ms)
    if delay_ms is not None and draft_ms >= delay_ms:
        raise DelayError(
            f"--draft-delay is {draft_ms} ms, expected less than the delay of "
            f"{delay_ms} ms; choose a longer --delay"
        )


def chosen_delay_ms(arguments: argparse.Namespace, checkpoint: Checkpoint) -> int:
    """Return what --delay says, or without it the model's own delay."""
    return checkpoint.delay_ms if arguments.delay is None else arguments.delay


def add_version_argument(parser: argparse.ArgumentParser) -> None:
    """Add -v and --version, which print the package's version and exit."""
    parser.add_argument(
        "-v", "--version", action=_Version, nargs=0, help="print the version and exit"
    )


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(
        self, parser: argparse.ArgumentParser, *_: object, **__: object
    ) -> NoReturn:
        sys.stdout.write(f"voxmlx {voxmlx.__version__}\n")
        parser.exit()


def report_error(error: VoxmlxError) -> None:
    """Write the error to stderr as one line."""
    line = str(error).replace("\n", " ")
    sys.stderr.write(f"voxmlx: error: {line}\n")
    sys.stderr.flush()


def report_warning(warning: SoundWarning) -> None:
    """Write what was wrong with the sound to stderr as one line."""
    if sys.stderr is not None:  # closed by who started us
        line = warning.message.replace("\n", " ")
        sys.stderr.write(f"voxmlx: warning: {line}\n")
        sys.stderr.flush()


def run_command(command: Callable[[], int]) -> int:
    """Run a command; its exit status, or that of the error that ended it.

    A VoxmlxError becomes one line on stderr and 1, a signal 128 and its number
    (Ctrl-C 130), a reader that closed standard output 141. Other exceptions are
    mistakes of ours and pass.
    """
    with robust_standard_streams():
        return _status(command)


def _status(command: Callable[[], int]) -> int:
    try:
        let_interrupt()
        warn_of_other_package()
        status = command()
        if sys.stdout is not None:  # closed by who started us
            sys.stdout.flush()
    except VoxmlxError as error:
        report_error(error)
        return 1
    except Interrupted as signal:
        return 128 + signal.number
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more when it exits.
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    return status
