"""A sound and its text -> subtitles: `python -m voxmlx.align TALK.wav TALK.txt`."""

import sys

if __name__ == "__main__":
    # Before all else is imported: Ctrl-C meanwhile should show no traceback.
    from voxmlx.cli.start import align

    sys.exit(align())


import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxmlx.alignment.align_file import AlignmentEvent, alignment_events, as_event
from voxmlx.alignment.aligner import (
    ALIGNED,
    MISSING,
    UNWRITTEN,
    AlignedWord,
    Aligner,
)
from voxmlx.audio.files import STANDARD_INPUT, open_audio
from voxmlx.cli.arguments import (
    CommandParser,
    add_channel_argument,
    add_model_arguments,
    add_raw_arguments,
    check_delay,
    chosen_delay_ms,
    load_model,
    raw_rate,
    report_warning,
    run_command,
)
from voxmlx.cli.interruption import Interruption
from voxmlx.cli.outputs import ResultFile, StandardOutput, check_output
from voxmlx.cli.progress import SoundProgress
from voxmlx.cli.word_arguments import add_subtitle_arguments, cue_rules
from voxmlx.errors import TextError
from voxmlx.events import Finished, SoundWarning
from voxmlx.text.formats import FormatOptions, Writer, make_writer
from voxmlx.text.lines import MAX_TEXT_BYTES, TooLongError, read_utf8
from voxmlx.text.utterances import DEFAULT_PAUSE_MS

__all__ = ["main", "make_parser"]

FORMATS = ("srt", "vtt", "json")

# So many words that do not match are named on stderr.
_N_NAMED = 5

_EXAMPLES = """\
examples:
  voxmlx align talk.wav talk.txt > talk.srt
  voxmlx align film.mkv script.txt -o film.vtt
  voxmlx align --delay 2400 --format json interview.mp3 interview.txt

The text is plain UTF-8: what is said, in the order in which it is said. Line breaks do
not matter. Numbers should be written as they are spoken. A word matches with or without
its punctuation and its capital.

srt and vtt have the words of the text that the sound holds. stderr says how many words
of the text it does not hold, and how many it holds beside them. json is one object with
the keys file, text_file, model, delay_ms, duration_ms and words. A word has text,
start_ms, end_ms, status, index and confidence. status is aligned, missing (from the
sound: the time is where it would be) or unwritten (only the sound holds it; no index).

exit status:
  0 done   1 an error was reported   2 wrong arguments   128+N ended by signal N
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    return run_command(lambda: _run(_parse_arguments(argv)))


def make_parser() -> CommandParser:
    """Return the parser of `voxmlx align`."""
    parser = CommandParser(
        "voxmlx align",
        description="Give the words of a text their times in a sound.",
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "audio", metavar="AUDIO", help="any sound or film; - is standard input"
    )
    parser.add_argument(
        "text", metavar="TEXT", type=Path, help="what is said in it: plain UTF-8"
    )
    add_raw_arguments(parser)
    add_channel_argument(
        parser,
        "the channel to hear, from 1, or mix for the mean of all (default: mix; where "
        "channels cancel each other, the loudest)",
    )
    group = parser.add_argument_group("result")
    group.add_argument(
        "--format",
        choices=FORMATS,
        help="form of the result (default: what the suffix of --output says, or srt)",
    )
    group.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="write the result there, once it is complete (default: standard output)",
    )
    add_model_arguments(parser)
    add_subtitle_arguments(parser)
    return parser


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser()
    arguments = parser.parse_args(argv)
    arguments.pause = DEFAULT_PAUSE_MS
    if arguments.format is None:
        suffix = "" if arguments.output is None else arguments.output.suffix[1:]
        if arguments.output is not None and suffix not in FORMATS:
            parser.error(
                f"--output {arguments.output} ends in none of .srt, .vtt and .json; say "
                "the form with --format"
            )
        arguments.format = suffix or "srt"
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    check_delay(arguments)
    text = _read_text(arguments.text)
    if arguments.output is not None:
        named = [] if arguments.audio == STANDARD_INPUT else [arguments.audio]
        check_output(arguments.output, [*named, str(arguments.text)])
    interruption = Interruption()
    with ExitStack() as stack:
        stack.enter_context(interruption.watch())
        audio = stack.enter_context(
            open_audio(
                arguments.audio,
                raw_rate=raw_rate(arguments),
                channel=arguments.channel,
                track=arguments.track,
            )
        )
        checkpoint = load_model(arguments)
        delay_ms = chosen_delay_ms(arguments, checkpoint)
        aligner = Aligner(
            checkpoint, text, delay_ms=delay_ms, kv_bits=arguments.kv_bits
        )
        head = {
            "file": audio.name,
            "text_file": str(arguments.text),
            "model": checkpoint.name,
            "delay_ms": delay_ms,
        }
        writer = _writer(arguments, head)
        output = arguments.output
        result = stack.enter_context(
            StandardOutput() if output is None else ResultFile(output)
        )
        progress = stack.enter_context(
            SoundProgress(
                audio.name,
                audio.duration_s,
                is_hidden=output is None and sys.stdout.isatty(),
            )
        )
        n_aligned = 0
        unmatched: list[AlignedWord] = []
        n_unmatched = {MISSING: 0, UNWRITTEN: 0}
        for found in alignment_events(audio, aligner, progress.follow):
            if isinstance(found, SoundWarning):
                report_warning(found)
            if isinstance(found, AlignedWord) and found.status == ALIGNED:
                n_aligned += 1
            if isinstance(found, AlignedWord) and found.status in n_unmatched:
                n_unmatched[found.status] += 1
                if n_unmatched[found.status] <= _N_NAMED:
                    unmatched.append(found)
            result.write(writer.feed(found))
        if not n_aligned:
            raise TextError(
                f"no word of {arguments.text} was found in {audio.name}, and nothing is "
                "written; is it the text of this sound, in this channel and track?"
            )
        result.write(writer.end())
    for status, n in n_unmatched.items():
        if n:
            named = [word for word in unmatched if word.status == status]
            sys.stderr.write(f"voxmlx: {_sentence(status, n, named)}\n")
    return 0


def _read_text(path: Path) -> str:
    """Raises TextError."""
    try:
        return read_utf8(path)
    except OSError as error:
        raise TextError(
            f"{path} cannot be read: {error.strerror or error}; expected the text of "
            "the sound"
        ) from None
    except TooLongError:
        raise TextError(
            f"{path} holds more than {MAX_TEXT_BYTES // 1_000_000} MB, expected the text "
            "of the sound"
        ) from None
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path} is no UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None


def _sentence(status: str, n: int, named: Sequence[AlignedWord]) -> str:
    words = ", ".join(f"{word.text} ({word.start_ms / 1000:.1f} s)" for word in named)
    more = ", ..." if n > len(named) else ""
    one = "word" if n == 1 else "words"
    if status == MISSING:
        return f"{n} {one} of the text not found in the sound: {words}{more}"
    return f"{n} {one} heard that the text does not have: {words}{more}"


class _EventWriter:
    """A subtitle format, fed with what an Aligner says."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def feed(self, found: AlignmentEvent) -> str:
        event = as_event(found)
        return "" if event is None else self._writer.feed(event)

    def end(self) -> str:
        return self._writer.end()


class _JsonAlignmentWriter:
    """One JSON object, written when all is known."""

    def __init__(self, head: dict[str, Any]) -> None:
        self._content = head
        self._words: list[dict[str, Any]] = []

    def feed(self, found: AlignmentEvent) -> str:
        if isinstance(found, AlignedWord):
            row = asdict(found)
            del row["lead"]
            if found.confidence is not None:
                row["confidence"] = round(found.confidence, 4)
            self._words.append(row)
        if isinstance(found, Finished):
            self._content["duration_ms"] = found.duration_ms
        return ""

    def end(self) -> str:
        content = {**self._content, "words": self._words}
        return json.dumps(content, ensure_ascii=False) + "\n"


def _writer(
    arguments: argparse.Namespace, head: dict[str, Any]
) -> _EventWriter | _JsonAlignmentWriter:
    if arguments.format == "json":
        return _JsonAlignmentWriter(head)
    options = FormatOptions(
        cues=cue_rules(arguments), has_word_times=arguments.word_times
    )
    return _EventWriter(make_writer(arguments.format, options))
