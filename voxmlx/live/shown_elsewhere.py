"""Arguments of captions that are shown elsewhere: a page, a file, another program."""

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from voxmlx.audio.files import STANDARD_INPUT
from voxmlx.cli.arguments import CommandParser, whole_number
from voxmlx.cli.outputs import name_one_file_twice
from voxmlx.live.caption_page import CaptionPage, open_caption_server, page_address
from voxmlx.live.last_lines import LastLinesFile, check_caption_file
from voxmlx.live.worker_commands import CommandReader, is_pipe
from voxmlx.text.caption_text import ShownText

__all__ = [
    "JSON_LINES",
    "Elsewhere",
    "add_elsewhere_arguments",
    "check_elsewhere_arguments",
    "open_commands",
    "refuse_caption_file",
]

JSON_LINES = "jsonl"
"""The format of --format that is for other programs."""

E = TypeVar("E")


def add_elsewhere_arguments(parser: CommandParser) -> None:
    """Add --serve-captions, --caption-file, --caption-lines, --format, --commands."""
    group = parser.add_argument_group("captions elsewhere")
    group.add_argument(
        "--serve-captions",
        metavar="[HOST:]PORT",
        type=page_address,
        help="show the last lines on a transparent page, for OBS, a second screen or a "
        "telephone; port 0 is any that is free (host: 127.0.0.1, this machine alone)",
    )
    group.add_argument(
        "--caption-file",
        metavar="FILE.txt",
        type=Path,
        help="keep the last lines in this file, which is replaced as a whole each time "
        "and emptied at the end; lines are as long as --line-chars",
    )
    group.add_argument(
        "--caption-lines",
        metavar="N",
        type=whole_number(1, 100),
        default=2,
        help="lines of --caption-file (default: %(default)s)",
    )
    group.add_argument(
        "--format",
        choices=("txt", JSON_LINES),
        help="what standard output gets: the text alone, as --plain, or all events as "
        "JSON lines for another program",
    )
    group.add_argument(
        "--commands",
        action=argparse.BooleanOptionalAction,
        help="with --format jsonl, obey flush, pause, resume, delay MS and stop, a line "
        "each on standard input; its end is a stop (default: where standard input is a "
        "pipe)",
    )


def check_elsewhere_arguments(
    parser: CommandParser, arguments: argparse.Namespace
) -> None:
    """Refuse arguments that do not go together; they end the program."""
    is_json = arguments.format == JSON_LINES
    if arguments.plain and is_json:
        parser.error("--plain is the text alone, --format jsonl is not; give one")
    if arguments.commands:
        if not is_json:
            parser.error("--commands goes with --format jsonl")
        if arguments.input == STANDARD_INPUT:
            parser.error("--commands and --input - both read standard input; give one")
        if sys.stdin is None:
            parser.error("--commands reads standard input, which is closed")
    path: Path | None = arguments.caption_file
    if path is None:
        if arguments.caption_lines != parser.get_default("caption_lines"):
            parser.error("--caption-lines goes with --caption-file")
        return
    if path.suffix != ".txt":
        parser.error(f"--caption-file {path}: expected a name that ends in .txt")
    others = [*arguments.output, *([arguments.record] if arguments.record else [])]
    if any(name_one_file_twice([path, other]) for other in others):
        parser.error(f"--caption-file {path} is another result too; name another file")


def refuse_caption_file(arguments: argparse.Namespace) -> None:
    """Raise OutputError for a --caption-file that must not be replaced."""
    if arguments.caption_file is None:
        return
    given = (
        *(arguments.input, arguments.hotwords, arguments.replace, arguments.record),
        *arguments.output,
    )
    inputs = [str(name) for name in given if name not in (None, STANDARD_INPUT)]
    check_caption_file(arguments.caption_file, inputs)


class Elsewhere:
    """A page and a file that show the last lines, as far as they are asked for.

    The page is served at once, so that a port that is taken is found out before the
    model is loaded. `listeners` empties the file. Raises ServerError.
    """

    def __init__(self, arguments: argparse.Namespace, stack: ExitStack) -> None:
        """Have `stack` close what is opened."""
        self._arguments = arguments
        self._stack = stack
        self._server = None
        if arguments.serve_captions is not None:
            self._server = open_caption_server(arguments.serve_captions)
            stack.callback(self._server.close)

    def head(self, model: str, delay_ms: int | None, source: str) -> dict[str, Any]:
        """Return what the first of the JSON lines says of the stream and of the page."""
        return {
            "model": model,
            "delay_ms": delay_ms,
            "draft_delay_ms": self._arguments.draft_delay,
            "source": source,
            "captions_url": None if self._server is None else self._server.url,
        }

    def listeners(
        self, new_text: Callable[[], ShownText[E]]
    ) -> list[CaptionPage[E] | LastLinesFile[E]]:
        """Return the listeners; each has a text of its own. Raises OutputError."""
        arguments = self._arguments
        found: list[CaptionPage[E] | LastLinesFile[E]] = []
        if self._server is not None:
            found.append(CaptionPage(self._server, new_text()))
        if arguments.caption_file is not None:
            lines = LastLinesFile(
                arguments.caption_file,
                new_text(),
                n_lines=arguments.caption_lines,
                width=arguments.line_chars,
            )
            self._stack.callback(lines.close)
            found.append(lines)
        return found


def open_commands(
    arguments: argparse.Namespace, stack: ExitStack
) -> CommandReader | None:
    """Read commands from standard input, where the arguments ask for that."""
    wanted = arguments.commands
    if wanted is None:
        is_free = arguments.input != STANDARD_INPUT and sys.stdin is not None
        wanted = arguments.format == JSON_LINES and is_free and is_pipe(0)
    if not wanted:
        return None
    reader = CommandReader(0)
    stack.callback(reader.close)
    return reader
