"""Short MP4 files, of which a long one is made: what FFmpeg reads instead of it."""

import io
import struct
from collections.abc import Callable, Iterator
from typing import Protocol

from voxmlx.audio.byte_source import ByteSource
from voxmlx.audio.mp4_boxes import FileContent, Mp4Content, boxes, read_head
from voxmlx.audio.mp4_movie import Window

__all__ = ["Mp4Part", "WindowPart", "fragment_parts"]

# Ten minutes of fragments of 3 s.
_MAX_FRAGMENTS = 200

_HEAD_BYTES = 16
_MAX_INDEX_BYTES = 1 << 24
_HAS_POSITION = 1

_ENDLESS = 1 << 62


class Mp4Part(Protocol):
    """A short file; `shift` is added to its time stamps.

    `is_last` says at its end that nothing can follow.
    """

    shift: int
    is_last: bool

    def read(self, n_bytes: int, /) -> bytes: ...


class WindowPart:
    """A header, and pieces of the sound of the long file."""

    def __init__(self, source: ByteSource, sound: Mp4Content, window: Window) -> None:
        self.shift = window.shift
        self.is_last = False
        self._source = source
        self._sound = sound
        self._header = window.header
        self._places = iter(window.places)
        self._position = self._n_left = 0

    def read(self, n_bytes: int) -> bytes:
        """Return bytes for FFmpeg; errors are kept in the source, not raised."""
        if self._header:
            piece, self._header = self._header[:n_bytes], self._header[n_bytes:]
            return piece
        while not self._n_left:
            if (following := next(self._places, None)) is None:
                return b""
            self._position, self._n_left = following
        n_wanted = min(n_bytes, self._n_left)
        piece = _read(
            self._source, lambda: self._sound.read_at(self._position, n_wanted)
        )
        self.is_last = not piece
        self._position += len(piece)
        self._n_left -= len(piece)
        return piece


def fragment_parts(
    source: ByteSource, head: bytes, read: Callable[[int], bytes]
) -> Iterator["FragmentPart"]:
    """Yield parts of some fragments each; read one to its end before the next.

    `head` is all before the first fragment, `read` gives what follows.
    """
    part = FragmentPart(source, head, b"", len(head), read)
    yield part
    while not part.is_last:
        part = FragmentPart(source, head, part.following, part.position, read)
        yield part


class FragmentPart:
    """The head of a file in fragments, and some of them."""

    def __init__(
        self,
        source: ByteSource,
        head: bytes,
        opened: bytes,
        position: int,
        read: Callable[[int], bytes],
    ) -> None:
        """`opened`, at `position` of the long file, is read already."""
        self.shift = 0  # a fragment says its time
        self.is_last = False
        # What was read of a fragment that belongs to the next part.
        self.following = b""
        self.position = position
        self._source = source
        self._read_more = read
        self._n_left_out = position - len(head)
        self._ready = head
        self._opened = opened
        self._n_left = 0
        self._n_fragments = 0

    def read(self, n_bytes: int) -> bytes:
        """Return bytes for FFmpeg; errors are kept in the source, not raised."""
        if not self._ready and not self._n_left and not self._begin_box():
            return b""
        if self._ready:
            piece, self._ready = self._ready[:n_bytes], self._ready[n_bytes:]
            return piece
        piece = self._take(min(n_bytes, self._n_left))
        self._n_left = self._n_left - len(piece) if piece else 0
        return piece

    def _begin_box(self) -> bool:
        """Read a box's head; False at the end of the part or of the file."""
        if self.following or self.is_last:
            return False
        head = self._opened + self._take_all(_HEAD_BYTES - len(self._opened))
        self._opened = b""
        size, kind, _ = read_head(head)
        if kind == b"moof" and self._n_fragments == _MAX_FRAGMENTS:
            self.following = head
            return False
        self.position += size
        if kind == b"moof" and len(head) < size <= _MAX_INDEX_BYTES:
            self._n_fragments += 1
            box = head + self._take_all(size - len(head))
            self._ready = _moved(box, self._n_left_out)
            return True
        self._ready = head[: size or None]
        self._opened = head[len(self._ready) :]
        # A size of 0 reaches to the end, and so does what is no size.
        self._n_left = max(0, size - len(head)) if size >= 8 else _ENDLESS
        return bool(self._ready)

    def _take(self, n_bytes: int) -> bytes:
        piece = _read(self._source, lambda: self._read_more(n_bytes))
        self.is_last = not piece
        return piece

    def _take_all(self, n_bytes: int) -> bytes:
        pieces: list[bytes] = []
        while n_bytes > 0 and (piece := self._take(n_bytes)):
            pieces.append(piece)
            n_bytes -= len(piece)
        return b"".join(pieces)


def _moved(box: bytes, n_left_out: int) -> bytes:
    """Return a fragment's index for a file that lacks some bytes before it."""
    content = FileContent(io.BytesIO(box), 0)
    moved = bytearray(box)
    for track in boxes(content, 8, len(box)):
        for head in boxes(content, track.begin, track.end):
            if head.kind == b"tfhd" and box[head.begin + 3] & _HAS_POSITION:
                at = head.begin + 8
                (position,) = struct.unpack_from(">Q", box, at)
                struct.pack_into(">Q", moved, at, max(0, position - n_left_out))
    return bytes(moved)


def _read(source: ByteSource, read: Callable[[], bytes]) -> bytes:
    if source.is_stopped:
        return b""
    try:
        return read()
    except BaseException as error:
        source.error = error
        return b""
