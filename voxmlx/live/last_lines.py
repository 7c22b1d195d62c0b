"""A file that holds the last lines alone: `--caption-file`. A listener."""

import os
import secrets
import stat
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from voxmlx.cli.outputs import check_output, unwritable
from voxmlx.errors import OutputError
from voxmlx.live.wrap import Wrapper
from voxmlx.text.caption_text import ShownText

__all__ = ["LastLinesFile", "check_caption_file"]

# More than captions of an earlier run may hold: a text that somebody wrote.
_MAX_EARLIER_BYTES = 4096


def check_caption_file(path: Path, inputs: Sequence[str]) -> None:
    """Raise OutputError unless the file may be replaced again and again.

    An earlier one may be there, as it is after a crash: a small text. It must be none
    of `inputs`. Touches nothing.
    """
    directory = Path(os.path.realpath(path)).parent  # of a link, where it leads
    if not directory.is_dir():
        raise OutputError(
            f"{path} cannot be written: there is no directory {directory}"
        )
    check_output(path, inputs, advice="name one in another directory")
    if path.exists() and any(_is_open_as(number, path) for number in range(3)):
        raise OutputError(
            f"{path} is where a standard stream goes, and would be replaced; choose "
            "another name"
        )
    try:
        is_caption = not path.exists() or _is_short_text(path)
    except OSError as error:
        raise unwritable(path, error) from None
    if not is_caption:
        raise OutputError(
            f"{path} holds more than captions, and would be replaced; choose another "
            "name, or remove it"
        )


@dataclass(slots=True, eq=False)
class _Paragraph:
    """A paragraph as far as it is wrapped: the last whole lines, and what follows."""

    lines: deque[str]
    text: str = ""
    wrapper: Wrapper = field(default_factory=Wrapper)


class _LastLines:
    """The last lines of a text; only what its paragraphs have grown by is wrapped."""

    def __init__(self, n_lines: int, width: int) -> None:
        self._n_lines = n_lines
        self._width = width
        self._paragraphs: list[_Paragraph] = []

    def of(self, text: str) -> list[str]:
        lines: list[str] = []
        paragraphs: list[_Paragraph] = []
        for paragraph in reversed(text.split("\n")):
            one = self._wrapped(paragraph)
            paragraphs.append(one)
            last = one.wrapper.current.rstrip(" ")
            lines = [*one.lines, *([last] if last else []), *lines]
            if len(lines) >= self._n_lines:
                break
        self._paragraphs = paragraphs
        return lines[-self._n_lines :]

    def _wrapped(self, text: str) -> _Paragraph:
        """The paragraph of a text, which may have been wrapped in part."""
        known = [one for one in self._paragraphs if text.startswith(one.text)]
        if known:
            one = max(known, key=lambda one: len(one.text))
            self._paragraphs.remove(one)
        else:
            one = _Paragraph(deque(maxlen=self._n_lines))
        one.lines.extend(one.wrapper.feed(text[len(one.text) :], self._width))
        one.text = text
        return one


E = TypeVar("E")


class LastLinesFile(Generic[E]):
    """The last `n_lines` lines of at most `width` cells, replaced as a whole.

    Whoever reads the file sees old lines or new ones, never a part of either: each
    version is written beside it, under a name of its own, and renamed. The file is
    empty at the beginning and after `close`. A symbolic link stays, and the file that
    it names is replaced.
    """

    def __init__(
        self, path: Path, text: ShownText[E], *, n_lines: int, width: int
    ) -> None:
        """Raises OutputError where the file cannot be written."""
        self._path = Path(os.path.realpath(path))
        self._text = text
        self._shown = ""
        self._lines = _LastLines(n_lines, width)
        self._written: str | None = None
        self._mode = 0o666
        if self._path.exists():
            self._mode = stat.S_IMODE(self._path.stat().st_mode)
        self._replace("")

    def on_audio(self, *heard: object) -> None:
        del heard

    def on_events(self, events: Sequence[E], /) -> None:
        # A draft is not shown here.
        if self._text.push(events) and self._text.text != self._shown:
            self._shown = self._text.text
            lines = self._lines.of(self._shown)
            self._replace("".join(f"{line}\n" for line in lines))

    def on_tick(self, metrics: object, /) -> None:
        del metrics

    def close(self) -> None:
        """Empty the file: what was said is no caption any more."""
        self._replace("")

    def _replace(self, content: str) -> None:
        if content == self._written:
            return
        # In the same directory, since a rename is atomic only within a file system.
        temporary = self._path.with_name(f".voxmlx-{secrets.token_hex(8)}")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with open(os.open(temporary, flags, self._mode), "wb") as file:
                file.write(content.encode("utf-8", "replace"))
            os.replace(temporary, self._path)
        except OSError as error:
            with suppress(OSError):  # its directory may have gone
                temporary.unlink(missing_ok=True)
            raise unwritable(self._path, error) from None
        self._written = content


def _is_short_text(path: Path) -> bool:
    """Whether a file may hold captions; of a large one only the beginning is read."""
    with path.open("rb") as file:
        earlier = file.read(_MAX_EARLIER_BYTES + 1)
    try:
        earlier.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return len(earlier) <= _MAX_EARLIER_BYTES


def _is_open_as(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
