"""Boxes of an MP4 or QuickTime file, found in a file or a pipe."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from voxmlx.audio.byte_source import ByteSource

__all__ = [
    "Box",
    "FileContent",
    "Mp4Content",
    "PipeContent",
    "boxes",
    "make_box",
    "read_head",
]

_SKIP_BYTES = 1 << 16


class Mp4Content(Protocol):
    """Bytes by their position in the MP4; a pipe only goes forward."""

    def read_at(self, position: int, n_bytes: int, /) -> bytes: ...


class FileContent:
    """The bytes of a file that can seek, whose MP4 begins at `start`."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file = file
        self._start = start

    def read_at(self, position: int, n_bytes: int) -> bytes:
        """Return at most `n_bytes`, none at the end. Raises OSError."""
        self._file.seek(self._start + position)
        return self._file.read(n_bytes)


class PipeContent:
    """The bytes of a pipe, of which `n_read` were taken already."""

    def __init__(self, source: ByteSource, n_read: int) -> None:
        self._source = source
        self._position = n_read

    def read_at(self, position: int, n_bytes: int) -> bytes:
        """Return at most `n_bytes`, none at the end. Raises OSError."""
        assert position >= self._position, "a pipe cannot go back"
        while self._position < position:
            n_skipped = min(_SKIP_BYTES, position - self._position)
            if not self._take(n_skipped):
                return b""
        return self._take(n_bytes)

    def _take(self, n_bytes: int) -> bytes:
        piece = self._source.read(n_bytes)
        self._position += len(piece)
        return piece


@dataclass(frozen=True, slots=True)
class Box:
    """A box: its four letters, and where it, its content and its end stand."""

    kind: bytes
    position: int
    begin: int
    end: int


def boxes(content: Mp4Content, begin: int, end: int | None) -> Iterator[Box]:
    """Yield the boxes from `begin` to `end` (None: to the end), as far as they are whole.

    Reads their headers alone.
    """
    position = begin
    while end is None or position + 8 <= end:
        head = content.read_at(position, 16)
        if len(head) < 8:
            return
        size, kind, n_header = read_head(head)
        if size == 0 and end is not None:
            size = end - position
        if size < n_header or (end is not None and position + size > end):
            return
        yield Box(kind, position, position + n_header, position + size)
        position += size


def read_head(head: bytes) -> tuple[int, bytes, int]:
    """Return a box's size, its letters, and how long its head is, from 16 bytes.

    A size of 0 reaches to the end. What is too short for a head is a size of 0.
    """
    if len(head) < 8:
        return 0, b"", 8
    size, kind = struct.unpack_from(">I4s", head)
    if size == 1 and len(head) >= 16:
        return struct.unpack_from(">Q", head, 8)[0], kind, 16
    return size, kind, 8


def make_box(kind: bytes, *contents: bytes) -> bytes:
    """Return a box with this content, less than 4 GiB."""
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content
