"""Arguments of several channels that share one transcript: who is heard, and echoes."""

import argparse

from voxmlx.text.echo_filter import EchoFilter

__all__ = ["add_label_arguments", "echo_notice", "name_one_label_twice"]


def add_label_arguments(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,  # pyright: ignore[reportPrivateUsage] -- argparse has no public name for it
    labels: str,
) -> None:
    """Add --label and --keep-echo; `labels` is the help of the first."""
    parser.add_argument(
        "--label",
        metavar="NAME",
        type=_label,
        action="append",
        default=[],
        dest="labels",
        help=labels,
    )
    parser.add_argument(
        "--keep-echo",
        action="store_true",
        help="keep words that are only the echo of another channel's, as of a "
        "loudspeaker that a microphone hears; json and jsonl mark them is_echo "
        "(default: they are left out)",
    )


def name_one_label_twice(arguments: argparse.Namespace) -> bool:
    """Return whether two channels are to have the same label."""
    return len(set(arguments.labels)) < len(arguments.labels)


def echo_notice(echo: EchoFilter) -> str | None:
    """Return what to say of the echoes that were left out, None if there were none."""
    n = echo.n_echoes
    if not n or echo.keeps:
        return None
    words = "1 word was" if n == 1 else f"{n} words were"
    return (
        f"{words} left out as the echo of another channel; --keep-echo keeps such words"
    )


def _label(text: str) -> str:
    label = " ".join(text.split())
    if not label or not label.isprintable() or "-->" in label:
        raise argparse.ArgumentTypeError(f"{text!r} is no name for a channel")
    return label
