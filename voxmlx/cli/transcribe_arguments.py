"""The arguments of `voxmlx transcribe`, and which of them do not go together."""

import argparse
from collections.abc import Sequence

from voxmlx import demo
from voxmlx.audio.channels import SPLIT
from voxmlx.audio.files import STANDARD_INPUT
from voxmlx.cli.arguments import (
    CommandParser,
    add_channel_argument,
    add_model_arguments,
    add_raw_arguments,
    whole_number,
)
from voxmlx.cli.channel_arguments import add_label_arguments, name_one_label_twice
from voxmlx.cli.jobs import add_output_arguments, check_output_arguments
from voxmlx.cli.server_arguments import (
    add_server_arguments,
    check_server_arguments,
)
from voxmlx.cli.word_arguments import (
    add_subtitle_arguments,
    add_word_arguments,
)

__all__ = ["N_JOBS", "make_parser", "parse_arguments"]

_EXAMPLES = """\
examples:
  voxmlx transcribe talk.mp3
  voxmlx transcribe --delay 2400 lecture.flac > lecture.txt
  voxmlx transcribe film.mkv -o film.srt
  voxmlx transcribe --format srt --format txt --output-dir out meetings/*/audio.m4a
  voxmlx transcribe --output-dir out --skip-existing talks/*.mp3
  voxmlx transcribe --channel split --label Anna --label Ben call.wav
  curl https://example.org/talk.mp3 | voxmlx transcribe -
  voxmlx transcribe --server http://cluster:8000 --jobs 16 --output-dir out meetings

Without -o or --output-dir, text is printed as it becomes final, under a line with
the file's name if there are several. With them, each result gets its name (DIR/STEM.txt,
.srt, ...) once it is complete. An earlier result stays as it was until then.

Ctrl-C, SIGTERM and a closed terminal window keep what was written so far as valid
files: talk.partial.txt, .srt, ... json has the entry is_partial then. Give
--skip-existing to go on with the files that are left.

json is one object per line and file, with the keys file, model, delay_ms,
duration_ms, text, segments (each with its words, their times and how sure the model
was) and tokens: the model's ids, one per 80 ms. jsonl is one line per event, as it
comes. All times are milliseconds of the sound.

A file that cannot be read is reported, and the others are transcribed all the same.
A folder stands for all sound and film files in it and below.

With --server, a server transcribes: voxmlx serve, vLLM, or any other one of OpenAI's
dialect. srt, vtt, json and jsonl need a server that tells times.

exit status:
  0 done   1 an error was reported   2 wrong arguments   128+N ended by
  signal N: 130 by Ctrl-C, 143 by SIGTERM, 129 by a closed terminal window
"""


# What no client can ask of a server.
_LOCAL_ONLY = ("no_speculation",)

# As many as a server of ours takes at a time.
N_JOBS, _MAX_JOBS = 4, 256


def make_parser() -> CommandParser:
    """Return the parser of `voxmlx transcribe`."""
    parser = CommandParser(
        "voxmlx transcribe",
        description="Transcribe sound files with Voxtral Realtime.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="any sound or film (m4a, mp3, wav, mp4, mov, webm, ...), or a folder of "
        "them; - is standard input; with --demo the default is its own sample",
    )
    add_raw_arguments(parser)
    add_channel_argument(
        parser,
        "the channel to transcribe, from 1; mix for the mean of all; split for each by "
        "itself, in one result in order of time (default: mix; where channels cancel "
        "each other, the loudest)",
        may_split=True,
    )
    add_label_arguments(
        parser,
        "with --channel split: who is heard on channel 1, then on channel 2, ... "
        '(default: "channel 1", ...)',
    )
    add_output_arguments(parser)
    parser.add_argument(
        "--no-speculation",
        action="store_true",
        help="decode one id at a time; otherwise ids are guessed ahead and verified "
        "several at once where that is faster, with the same result",
    )
    group = add_server_arguments(
        parser,
        address="transcribe there and not here: http://HOST:PORT of voxmlx serve, vLLM "
        "or another server of OpenAI's dialect; --model is then the name by which it "
        "knows its model (default: the one it has)",
        reconnect="how long to try again when the server is away or full",
    )
    group.add_argument(
        "--jobs",
        metavar="N",
        type=whole_number(1, _MAX_JOBS),
        help=f"how many files the server gets at a time (default: {N_JOBS})",
    )
    add_model_arguments(parser)
    add_word_arguments(parser)
    add_subtitle_arguments(parser)
    return parser


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the arguments; those that do not go together end the program."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    check_server_arguments(parser, arguments, local=_LOCAL_ONLY, remote=("jobs",))
    if not arguments.files:
        if arguments.model != demo.NAME:
            parser.error("no FILE; name one, or try --demo")
        arguments.files = [str(demo.SAMPLE)]
    if arguments.files.count(STANDARD_INPUT) > 1:
        parser.error("standard input (-) can be read once, it is named several times")
    if arguments.server is not None and arguments.channel == SPLIT:
        parser.error(
            "--channel split is of a model on this machine, leave --server out"
        )
    if arguments.labels and arguments.channel != SPLIT:
        parser.error("--label goes with --channel split")
    if arguments.keep_echo and arguments.channel != SPLIT:
        parser.error("--keep-echo goes with --channel split")
    if name_one_label_twice(arguments):
        parser.error("two channels have the same --label")
    check_output_arguments(parser, arguments)
    return arguments
