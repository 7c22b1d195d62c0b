"""Arguments of the sources of sound, and which of them go together."""

import argparse
from collections.abc import Sequence

from voxmlx.audio.channels import SPLIT
from voxmlx.audio.files import STANDARD_INPUT
from voxmlx.cli.arguments import CommandParser, add_channel_argument
from voxmlx.cli.channel_arguments import add_label_arguments, name_one_label_twice

__all__ = ["add_source_arguments", "check_sources", "has_several_sources"]

# What is of one stream.
_OF_ONE_SOURCE = ("server", "resume")

# As many as channels of a file can be split.
_MAX_SOURCES = 16


def add_source_arguments(parser: CommandParser) -> None:
    """Add --device, --channel, --track, --label, --keep-echo and --input."""
    sound = parser.add_argument_group("sound")
    sound.add_argument(
        "--device",
        metavar="NAME_OR_N",
        action="append",
        default=[],
        dest="devices",
        help="microphone: its number, or a part of its name (default: the system's); "
        "given several times, all are heard at once, each by itself, in one transcript "
        "with labels",
    )
    add_channel_argument(
        sound,
        "the microphone's input or the file's channel N, from 1, or mix for the mean "
        "of all (default: the input that carries sound; a file's channels are mixed); "
        "split hears each channel of the --input FILE by itself",
        may_split=True,
    )
    add_label_arguments(
        sound,
        "with several --device or with --channel split: who is heard on the first, then "
        'on the second, ... (default: "me" and "them" for a microphone and a device '
        "that carries what the computer plays, else the devices' names; "
        '"channel 1", ...)',
    )
    sound.add_argument(
        "--list-devices", action="store_true", help="list the microphones and exit"
    )
    sound.add_argument(
        "--input",
        metavar="FILE",
        help="hear any sound or film file instead; - is standard input",
    )
    sound.add_argument(
        "--realtime",
        action="store_true",
        help="hear the --input FILE as fast as it was spoken, not as fast as possible",
    )


def has_several_sources(arguments: argparse.Namespace) -> bool:
    """Return whether several sounds are heard, each by itself."""
    return len(arguments.devices) > 1 or arguments.channel == SPLIT


def check_sources(parser: CommandParser, arguments: argparse.Namespace) -> None:
    """Refuse arguments of sources that do not go together; it ends the program."""
    devices: Sequence[str] = arguments.devices
    if arguments.input is not None and devices:
        parser.error("--device and --input are two sources of sound; give one")
    if arguments.track is not None and arguments.input is None:
        parser.error("--track goes with --input FILE")
    if arguments.realtime and arguments.input in (None, STANDARD_INPUT):
        parser.error("--realtime goes with --input FILE")
    if arguments.channel == SPLIT and arguments.input is None:
        parser.error(
            "--channel split goes with --input FILE; devices are heard apart where "
            "--device is given several times"
        )
    if len(set(devices)) < len(devices):
        parser.error("--device names one device twice; give it once")
    if len(devices) > _MAX_SOURCES:
        parser.error(
            f"--device is given {len(devices)} times, expected at most {_MAX_SOURCES}"
        )
    if has_several_sources(arguments):
        _check_several(parser, arguments)
    elif arguments.labels or arguments.keep_echo:
        option = "--label" if arguments.labels else "--keep-echo"
        parser.error(f"{option} goes with several --device, or with --channel split")


def _check_several(parser: CommandParser, arguments: argparse.Namespace) -> None:
    several = "--channel split" if arguments.channel == SPLIT else "several --device"
    for name in _OF_ONE_SOURCE:
        if getattr(arguments, name) != parser.get_default(name):
            option = name.replace("_", "-")
            parser.error(f"--{option} is of one stream and does not go with {several}")
    n_devices = len(arguments.devices)
    if n_devices and len(arguments.labels) > n_devices:
        parser.error(
            f"--label is given {len(arguments.labels)} times for {n_devices} devices; "
            "give one for each"
        )
    if name_one_label_twice(arguments):
        parser.error("two sources have the same --label")
