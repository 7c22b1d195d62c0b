"""The arguments of `voxmlx live`, and which of them do not go together."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from voxmlx.cli.arguments import (
    CommandParser,
    add_model_arguments,
    add_raw_arguments,
    add_silence_argument,
)
from voxmlx.cli.outputs import name_one_file_twice
from voxmlx.cli.server_arguments import add_server_arguments, check_server_arguments
from voxmlx.cli.word_arguments import add_subtitle_arguments, add_word_arguments
from voxmlx.config import BASE_MODEL
from voxmlx.live.shown_elsewhere import (
    add_elsewhere_arguments,
    check_elsewhere_arguments,
)
from voxmlx.live.source_arguments import add_source_arguments, check_sources

__all__ = ["make_parser", "parse_arguments"]

_EXAMPLES = """\
examples:
  voxmlx live                                  captions from the microphone
  voxmlx live --demo                           the same with the bundled tiny model
  voxmlx live --list-devices
  voxmlx live --device "USB Audio" --output talk.srt --record talk.wav
  voxmlx live --device "MacBook" --device "BlackHole 2ch" --output call.srt
  voxmlx live --input film.wav --realtime
  ffmpeg -i rtsp://camera -f wav - | voxmlx live --input - --plain > captions.txt
  voxmlx live --server ws://192.168.1.20:8000  decoded there, by voxmlx serve or vLLM
  voxmlx live --serve-captions 8123            a page of captions, as for OBS
  voxmlx live --format jsonl                   events and commands of another program

Ctrl-C once ends the stream: words already spoken still come out, files are complete.
So do SIGTERM and a closed terminal window. Ctrl-C twice stops at once; files are valid
up to there.

exit status:
  0 ended   1 an error was reported   2 wrong arguments   128+N stopped by a second
  signal N: 130 by Ctrl-C
"""

# What no client can ask of a server.
_LOCAL_ONLY = ("resume", "silence_block")

# What grows with the stream (json) cannot be written as it comes.
_FORMATS = ("txt", "srt", "vtt", "jsonl")


def make_parser() -> CommandParser:
    """Return the parser of `voxmlx live`."""
    parser = CommandParser(
        "voxmlx live",
        description="Show what is being said, as it is said, with Voxtral Realtime.",
        epilog=_EXAMPLES,
    )
    add_source_arguments(parser)
    results = parser.add_argument_group("results")
    results.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="also write captions there as they become final; its suffix says how: "
        f"{', '.join(_FORMATS)}; may be given several times",
    )
    results.add_argument(
        "--record",
        metavar="FILE.wav",
        type=Path,
        help="also record what is heard; of several sources each has a channel",
    )
    results.add_argument(
        "--resume",
        metavar="FILE.wav",
        type=Path,
        help="go on with this recording, and with the --output files of its stream, "
        "after a crash or a power cut; the .jsonl one saves decoding it again",
    )
    results.add_argument(
        "--plain",
        action="store_true",
        help="text alone, without colours or a status line; so it always is where "
        "standard output is no terminal",
    )
    results.add_argument(
        "--stats",
        action="store_true",
        help="at the end, print lag, step times and memory as one line of JSON on "
        "stderr",
    )
    add_elsewhere_arguments(parser)
    _add_pace_arguments(parser)
    add_server_arguments(
        parser,
        address="decode there and not here: ws://HOST:PORT of voxmlx serve, or of any "
        "server that speaks vLLM's realtime dialect; --model is then the name by "
        f"which it knows its model (default: {BASE_MODEL})",
        reconnect="how long to try again when the server goes away; sound is kept "
        "meanwhile, and no word is lost or doubled",
    )
    add_raw_arguments(parser)
    add_model_arguments(parser)
    add_word_arguments(parser)
    add_subtitle_arguments(parser)
    return parser


def _add_pace_arguments(parser: CommandParser) -> None:
    pace = parser.add_argument_group("pace")
    pace.add_argument(
        "--draft-delay",
        metavar="MS",
        type=int,
        help="also show, dim, what may follow: the text at this shorter delay, one of "
        "those of --delay; it is replaced by the text that stays (default: none)",
    )
    add_silence_argument(pace)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; those that do not go together end the program."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    check_sources(parser, arguments)
    if name_one_file_twice(arguments.output):
        parser.error("--output names one file twice; give it once")
    for path in arguments.output:
        if path.suffix.removeprefix(".") not in _FORMATS:
            parser.error(
                f"--output {path}: expected a name that ends in .{', .'.join(_FORMATS)}"
            )
    if arguments.resume is not None:
        if arguments.record is not None:
            parser.error("--resume goes on recording there; leave --record out")
        arguments.record = arguments.resume
    if arguments.record is not None and arguments.record.suffix != ".wav":
        parser.error(f"--record {arguments.record}: expected a name that ends in .wav")
    check_elsewhere_arguments(parser, arguments)
    check_server_arguments(parser, arguments, local=_LOCAL_ONLY)
    return arguments
