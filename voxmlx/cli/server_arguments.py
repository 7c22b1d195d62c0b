"""Arguments of commands that may leave the decoding to a server."""

import argparse
import os
from collections.abc import Sequence

from voxmlx.cli.arguments import KEY_VARIABLE, CommandParser
from voxmlx.errors import ServerError

__all__ = [
    "add_server_arguments",
    "check_server_arguments",
    "reconnect_s",
    "server_key",
]

# How long a server is waited for that has gone away: a small machine restarts in less.
_RECONNECT_S = 120.0
# A week.
_MAX_SECONDS = 604_800

# What every command asks of a model of its own, and no client of a server.
_OF_THE_MODEL = (
    "dtype",
    "kv_bits",
    "embedding_bits",
    "no_guards",
    "hotword_boost",
    "alternatives",
)


def add_server_arguments(
    parser: CommandParser, *, address: str, reconnect: str
) -> argparse._ArgumentGroup:  # pyright: ignore[reportPrivateUsage] -- argparse has no public name for it
    """Add --server, --api-key and --reconnect; return their group.

    `address` and `reconnect` say in the help what the options mean for this command.
    """
    group = parser.add_argument_group("server")
    group.add_argument("--server", metavar="URL", help=address)
    group.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"what the server asks for (default: the environment's {KEY_VARIABLE})",
    )
    group.add_argument(
        "--reconnect",
        metavar="SECONDS",
        type=_seconds,
        help=f"{reconnect} (default: {_RECONNECT_S:g}; 0: not at all)",
    )
    return group


def check_server_arguments(
    parser: CommandParser,
    arguments: argparse.Namespace,
    *,
    local: Sequence[str],
    remote: Sequence[str] = (),
) -> None:
    """Refuse options that do not go together, by the names that they are parsed to.

    `local` ones are about a model on this machine, as all of _OF_THE_MODEL are;
    `remote` ones are about a server.
    """
    is_remote = arguments.server is not None
    wrong = (*_OF_THE_MODEL, *local) if is_remote else ("api_key", "reconnect", *remote)
    for name in wrong:
        if getattr(arguments, name) == parser.get_default(name):
            continue
        option = name.replace("_", "-")
        if is_remote:
            parser.error(f"--{option} is about a model on this machine, --server not")
        parser.error(f"--{option} goes with --server")


def reconnect_s(arguments: argparse.Namespace) -> float:
    """Return for how long a server is to be tried again."""
    return _RECONNECT_S if arguments.reconnect is None else arguments.reconnect


def server_key(arguments: argparse.Namespace) -> str | None:
    """Return the key for the server, if any. Raises ServerError for one that is none.

    The error does not show the key.
    """
    key = arguments.api_key
    name = "--api-key"
    if key is None:
        key, name = os.environ.get(KEY_VARIABLE) or None, KEY_VARIABLE
    if key is not None and (not key.isprintable() or not key or key != key.strip()):
        raise ServerError(
            f"{name} is empty, begins or ends with white space, or has a control "
            "character; no HTTP header can carry it"
        )
    return key


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds from 0 to {_MAX_SECONDS}"
        )
    return number
