"""A file that holds the last lines alone: `--caption-file`. A listener."""

import os
import secrets
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from voxmlx.cli.outputs import check_output
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
        earlier = path.read_bytes() if path.exists() else b""
        earlier.decode("utf-8")
    except OSError as error:
        raise _unwritable(path, error) from None
    except UnicodeDecodeError:
        earlier = bytes(_MAX_EARLIER_BYTES + 1)
    if len(earlier) > _MAX_EARLIER_BYTES:
        raise OutputError(
            f"{path} holds more than captions, and would be replaced; choose another "
            "name, or remove it"
        )


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
        self._n_lines = n_lines
        self._width = width
        self._written: str | None = None
        self._mode = 0o666
        if self._path.exists():
            self._mode = stat.S_IMODE(self._path.stat().st_mode)
        self._replace("")

    def on_audio(self, *heard: object) -> None:
        del heard

    def on_events(self, events: Sequence[E], /) -> None:
        if self._text.push(events):
            self._replace("".join(f"{line}\n" for line in self._lines()))

    def on_tick(self, metrics: object, /) -> None:
        del metrics

    def close(self) -> None:
        """Empty the file: what was said is no caption any more."""
        self._replace("")

    def _lines(self) -> list[str]:
        lines: list[str] = []
        for paragraph in reversed(self._text.text.split("\n")):
            wrapper = Wrapper()
            wrapped = [*wrapper.feed(paragraph, self._width), *wrapper.end_paragraph()]
            lines = wrapped + lines
            if len(lines) >= self._n_lines:
                break
        return lines[-self._n_lines :]

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
            raise _unwritable(self._path, error) from None
        self._written = content


def _is_open_as(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written: {error.strerror or error}")
