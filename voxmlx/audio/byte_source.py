"""Sources of a sound's bytes: a path, standard input or a file object."""

import io
import os
import select
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from voxmlx.errors import AudioError

__all__ = [
    "STANDARD_INPUT",
    "ByteSource",
    "ForwardBytes",
    "ReadableFile",
    "SeekableBytes",
    "open_source",
]

STANDARD_INPUT = "-"

_COPY_BYTES = 1 << 18


class ReadableFile(Protocol):
    """A readable file object; `seek`, `tell` and `seekable` help if they are there."""

    def read(self, n_bytes: int, /) -> bytes: ...


class ByteSource:
    """Bytes from front to back, with a look at the first of them.

    `is_pipe` means that the bytes cannot be read a second time.
    """

    def __init__(
        self, file: ReadableFile, name: str, *, is_pipe: bool, is_ours: bool
    ) -> None:
        """`is_ours` says that `close` also closes the file."""
        self.name = name
        self.is_pipe = is_pipe
        # What went wrong inside a read. FFmpeg only learns that the bytes end.
        self.error: BaseException | None = None
        self.is_at_end = False
        self.is_stopped = False
        self._file = file
        self._is_ours = is_ours
        self._start = _position(file)
        self._head = b""
        self._n_head_read = 0
        # read1 gives what a pipe holds; read would wait for more.
        self._read = getattr(file, "read1", file.read)

    @property
    def is_seekable(self) -> bool:
        return self._start is not None

    def peek(self, n_bytes: int) -> bytes:
        """Return the first `n_bytes`, fewer only where the source ends. Raises OSError."""
        while len(self._head) < n_bytes and not self.is_at_end:
            piece = self._read_checked(n_bytes - len(self._head))
            self._head += piece
            self.is_at_end = not piece
        return self._head[:n_bytes]

    def read(self, n_bytes: int) -> bytes:
        """Return the next bytes, at most `n_bytes`, none at the end. Raises OSError."""
        if self._n_head_read < len(self._head):
            piece = self._head[self._n_head_read : self._n_head_read + n_bytes]
            self._n_head_read += len(piece)
            return piece
        if self.is_at_end:
            return b""
        piece = self._read_checked(n_bytes)
        self.is_at_end = not piece
        return piece

    def has_more(self) -> bool:
        """Return whether a read would not wait, as far as can be known."""
        if not self.is_pipe:
            return True
        file: Any = self._file
        try:
            number: int = file.fileno()
            return bool(select.select([number], [], [], 0)[0])
        except (AttributeError, OSError, ValueError):
            return False

    def file_from_start(self) -> BinaryIO:
        """Return a seekable file with all the bytes. Raises OSError.

        A pipe is first copied to a temporary file, which has no name and vanishes
        when it is closed.
        """
        if self._start is not None:
            return self._file  # pyright: ignore[reportReturnType] -- it can seek
        copy = self.new_copy()
        self.copy_to(copy)
        copy.seek(0)
        return copy

    def new_copy(self) -> BinaryIO:
        """Return an empty file for bytes of a pipe; it has no name. Raises OSError."""
        # A wrapper on Windows alone.
        return tempfile.TemporaryFile(prefix="voxmlx-")  # pyright: ignore[reportReturnType]

    def copy_to(self, copy: BinaryIO, n_bytes: int | None = None) -> None:
        """Append the next `n_bytes`, by default all that follow. Raises OSError."""
        n_left = _COPY_BYTES if n_bytes is None else n_bytes
        while n_left and not self.is_stopped:
            piece = self.read(min(_COPY_BYTES, n_left))
            if not piece:
                break
            copy.write(piece)
            if n_bytes is not None:
                n_left -= len(piece)

    def tail(self, n_bytes: int) -> bytes | None:
        """Return the last bytes; None of what cannot seek. Raises OSError."""
        if self._start is None:
            return None
        file: BinaryIO = self._file  # pyright: ignore[reportAssignmentType] -- it can seek
        position = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(max(self._start, end - n_bytes))
        tail = file.read(n_bytes)
        file.seek(position)
        return tail

    @property
    def start(self) -> int:
        """Return where the sound begins in the file of `file_from_start`."""
        return self._start or 0

    def raise_error(self) -> None:
        """Raise what went wrong inside a read, once."""
        error, self.error = self.error, None
        if error is not None:
            raise error

    def close(self) -> None:
        if self._is_ours:
            cast(Any, self._file).close()

    def _read_checked(self, n_bytes: int) -> bytes:
        piece = self._read(n_bytes)
        if piece is None:  # pyright: ignore[reportUnnecessaryComparison] -- non-blocking
            raise AudioError(
                f"{self.name} is a non-blocking file, expected one whose read waits"
            )
        if not isinstance(piece, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            if not isinstance(piece, bytearray | memoryview):
                raise AudioError(
                    f"{self.name} gives {type(piece).__name__} and not bytes; open it "
                    "with open(path, 'rb')"
                )
            piece = bytes(cast("bytearray", piece))
        return piece


class ForwardBytes:
    """A source as FFmpeg reads it without seeking. Errors are kept, not raised.

    FFmpeg's reads come from C code, through which no exception passes. `watch` sees
    the bytes as well.
    """

    def __init__(
        self, source: ByteSource, watch: Callable[[bytes], None] | None = None
    ) -> None:
        self._source = source
        self._watch = watch

    def read(self, n_bytes: int) -> bytes:
        source = self._source
        if source.is_stopped:
            return b""
        try:
            piece = source.read(n_bytes)
            if self._watch is not None:
                self._watch(piece)
        except BaseException as error:
            source.error = error
            return b""
        return piece


class SeekableBytes:
    """A file as FFmpeg reads it with seeking. Errors are kept, not raised."""

    def __init__(self, source: ByteSource, file: BinaryIO, start: int) -> None:
        self._source = source
        self._file = file
        self._start = start
        file.seek(start)

    def read(self, n_bytes: int) -> bytes:
        if self._source.is_stopped:
            return b""
        try:
            return self._file.read(n_bytes)
        except BaseException as error:
            self._source.error = error
            return b""

    def seek(self, offset: int, whence: int) -> int:
        try:
            if whence == os.SEEK_SET:
                offset += self._start
            return self._file.seek(offset, whence) - self._start
        except (OSError, ValueError):
            return -1

    def tell(self) -> int:
        return self._file.tell() - self._start


def open_source(path: str | Path | ReadableFile, name: str | None = None) -> ByteSource:
    """Open a path, standard input ("-") or a file object, which its owner closes.

    Errors speak of `name`, by default that of the file. Raises AudioError for what is
    missing or may not be read.
    """
    if not isinstance(path, str | Path):
        if not callable(getattr(path, "read", None)):
            raise AudioError(
                f"{path!r} is a {type(path).__name__}, expected a path or a file object "
                "with a read method"
            )
        own_name = getattr(path, "name", None)
        if name is None:
            name = own_name if isinstance(own_name, str) and own_name else "the sound"
        is_seekable = _position(path) is not None
        return ByteSource(path, name, is_pipe=not is_seekable, is_ours=False)
    if str(path) == STANDARD_INPUT:
        return ByteSource(
            _standard_input(), name or "standard input", is_pipe=True, is_ours=True
        )
    file = _open(path)
    try:
        status = os.fstat(file.fileno())
        is_pipe = not stat.S_ISREG(status.st_mode)
        if not is_pipe:
            file.seek(0)  # /dev/stdin shares its position with who read it before
    except OSError as error:
        file.close()
        raise AudioError(f"{path} cannot be read: {error.strerror or error}") from None
    return ByteSource(file, name or str(path), is_pipe=is_pipe, is_ours=True)


def _position(file: Any) -> int | None:
    """Return the position of a file that can seek, None of one that cannot."""
    try:
        if not file.seekable():
            return None
        return file.tell()
    except (AttributeError, OSError, ValueError):
        return None


def _open(path: str | Path) -> io.BufferedReader:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise AudioError(f"{path} does not exist; check its path") from None
    except IsADirectoryError:
        raise AudioError(f"{path} is a directory; name the files in it") from None
    except PermissionError:
        raise AudioError(f"{path} may not be read; check its permissions") from None
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise AudioError(f"{str(path)!r} is no path: it holds a NUL") from None


def _standard_input() -> io.BufferedReader:
    if sys.stdin is None:
        raise AudioError("standard input is closed; pipe sound into it or name a file")
    if sys.stdin.isatty():
        raise AudioError(
            "standard input is a terminal, expected sound; pipe it in, as in "
            "cat FILE | voxmlx transcribe -"
        )
    # A second view of the descriptor, so that closing it leaves sys.stdin open.
    return open(sys.stdin.fileno(), "rb", closefd=False)
