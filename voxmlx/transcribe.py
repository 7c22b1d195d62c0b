"""Sound files -> transcripts: `python -m voxmlx.transcribe FILE...`."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from voxmlx import demo
from voxmlx.arguments import (
    CommandParser,
    add_model_arguments,
    add_rate_argument,
    add_subtitle_arguments,
    add_word_arguments,
    cue_rules,
    load_model,
    report_error,
    run_command,
    word_options,
)
from voxmlx.audio.files import STANDARD_INPUT, AudioFile, open_audio
from voxmlx.config import delay_tokens
from voxmlx.errors import AudioError
from voxmlx.events import Event
from voxmlx.formats import FORMATS, FormatOptions, make_writer
from voxmlx.outputs import AtomicTextFile, StandardOutput, plan_outputs
from voxmlx.progress import SoundProgress
from voxmlx.recovery_notice import RecoveryNotice
from voxmlx.session import Session

__all__ = [
    "Recogniser",
    "Stream",
    "load_recogniser",
    "main",
    "make_parser",
    "transcribe",
]

_EXAMPLES = """\
examples:
  voxmlx transcribe talk.mp3
  voxmlx transcribe --delay 2400 lecture.flac > lecture.txt
  voxmlx transcribe --format srt --output-dir subtitles films/*.wav
  voxmlx transcribe --format json --hotwords names.txt --output-dir out meeting.ogg
  ffmpeg -i film.mkv -f wav - | voxmlx transcribe -

Without --output-dir, text is printed as it becomes final, under a line with the
file's name if there are several. With it, each result is written to DIR/STEM.txt,
.srt, ... once complete; an earlier one stays as it was until then.

json is one object per line and file, with the keys file, model, delay_ms,
duration_ms, text, segments (each with its words, their times and how sure the model
was) and tokens: the model's ids, one per 80 ms. jsonl is one line per event, as it
comes. All times are milliseconds of the sound.

A file that cannot be read is reported, and the others are transcribed all the same.

exit status:
  0 done   1 an error was reported   2 wrong arguments   130 ended by Ctrl-C
"""


class Stream(Protocol):
    """One stream's timeline: what this command needs of a Session."""

    def push(self, samples: np.ndarray, /) -> list[Event]: ...
    def finish(self) -> list[Event]: ...


@dataclass(frozen=True, slots=True)
class Recogniser:
    """A loaded model; `start` opens one stream, for one file."""

    model_name: str
    start: Callable[[], Stream]


@dataclass(frozen=True, slots=True)
class _Job:
    """One input on its way to one output, standard output if that is None.

    `audio` is open already where the input cannot be opened twice.
    """

    name: str
    output: Path | None
    audio: AudioFile | None


def main(
    argv: Sequence[str] | None = None,
    *,
    recogniser: Callable[[argparse.Namespace], Recogniser] | None = None,
) -> int:
    """Run the command; its exit status. `recogniser` stands in for the model."""
    return run_command(
        lambda: _run(_parse_arguments(argv), recogniser or load_recogniser)
    )


def load_recogniser(arguments: argparse.Namespace) -> Recogniser:
    """The model that --model, --dtype and --delay ask for."""
    checkpoint = load_model(arguments)
    options = word_options(arguments, checkpoint.tokenizer)
    # Probabilities cost a little and only these formats show them.
    has_confidence = arguments.format in ("json", "jsonl")
    return Recogniser(
        checkpoint.name,
        lambda: Session(
            checkpoint,
            delay_ms=arguments.delay,
            confidence=has_confidence,
            speculate=not arguments.no_speculation,
            **options,
        ),
    )


def transcribe(pieces: Iterable[np.ndarray], stream: Stream) -> Iterator[Event]:
    """Push 16 kHz mono pieces and finish the stream; its events as they come."""
    for piece in pieces:
        yield from stream.push(piece)
    yield from stream.finish()


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
        help="sound in any format of libsndfile (wav, flac, ogg, opus, mp3, ...), any "
        "rate and channels; - is standard input: WAV, or headerless 16-bit "
        "little-endian mono; with --demo the default is its own sample",
    )
    add_rate_argument(parser)
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="txt",
        help="form of the result (default: %(default)s)",
    )
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        type=Path,
        help="write a file per input there, made if need be, instead of printing",
    )
    parser.add_argument(
        "--no-speculation",
        action="store_true",
        help="decode one id at a time; otherwise ids are guessed ahead and verified "
        "several at once where that is faster, with the same result",
    )
    add_model_arguments(parser)
    add_word_arguments(parser)
    add_subtitle_arguments(parser)
    return parser


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if not arguments.files:
        if arguments.model != demo.NAME:
            parser.error("no FILE; name one, or try --demo")
        arguments.files = [str(demo.SAMPLE)]
    if arguments.files.count(STANDARD_INPUT) > 1:
        parser.error("standard input (-) can be read once, it is named several times")
    return arguments


def _run(
    arguments: argparse.Namespace,
    recogniser: Callable[[argparse.Namespace], Recogniser],
) -> int:
    delay_tokens(arguments.delay)
    word_options(arguments)
    with ExitStack() as pipes:
        jobs = _open_jobs(arguments, pipes)
        n_failed = len(arguments.files) - len(jobs)
        if jobs:
            model = recogniser(arguments)
            for job in jobs:
                try:
                    _do(job, model, arguments)
                except AudioError as error:
                    report_error(error)
                    n_failed += 1
    return 1 if n_failed else 0


def _open_jobs(arguments: argparse.Namespace, pipes: ExitStack) -> list[_Job]:
    """The inputs that can be read; the others are reported.

    A look at every header before the model is loaded, which may take minutes.
    """
    outputs: Sequence[Path | None] = [None] * len(arguments.files)
    if arguments.output_dir is not None:
        outputs = plan_outputs(
            arguments.files, arguments.output_dir, f".{arguments.format}"
        )
    jobs: list[_Job] = []
    for name, output in zip(arguments.files, outputs, strict=True):
        try:
            audio = open_audio(name, headerless_rate=arguments.rate)
        except AudioError as error:
            report_error(error)
            continue
        if audio.is_pipe:
            jobs.append(_Job(name, output, pipes.enter_context(audio)))
        else:
            # Closed until its turn: a thousand files are more than may be open.
            audio.close()
            jobs.append(_Job(name, output, None))
    return jobs


def _do(job: _Job, model: Recogniser, arguments: argparse.Namespace) -> None:
    """Transcribe one input to its output. Raises AudioError or OutputError."""
    is_printed = job.output is None and arguments.format != "json"
    options = FormatOptions(
        cues=cue_rules(arguments),
        has_word_times=arguments.word_times,
        has_tokens=arguments.alternatives > 0,
    )
    head = {"file": job.name, "model": model.model_name, "delay_ms": arguments.delay}
    writer = make_writer(arguments.format, options, head)
    with ExitStack() as stack:
        audio = stack.enter_context(job.audio or open_audio(job.name))
        output = stack.enter_context(
            StandardOutput() if job.output is None else AtomicTextFile(job.output)
        )
        if is_printed and arguments.format == "txt" and len(arguments.files) > 1:
            output.write(f"==> {job.name} <==\n")
        progress = stack.enter_context(
            # On a terminal, text that is being printed shows the progress itself.
            SoundProgress(
                audio.name,
                audio.duration_s,
                is_hidden=is_printed and sys.stdout.isatty(),
            )
        )
        notice = RecoveryNotice(arguments.dtype)
        for event in transcribe(progress.follow(audio.pieces()), model.start()):
            output.write(writer.feed(event))
            if (sentence := notice.observe(event)) is not None:
                sys.stderr.write(f"voxmlx: {audio.name}: {sentence}\n")
        output.write(writer.finish())


if __name__ == "__main__":
    sys.exit(main())
