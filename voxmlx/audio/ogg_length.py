"""The end of an Ogg file, from its last page.

Measured with FFmpeg 8.1: it does not tell that a file was cut, from a pipe it knows no
length, and of a Vorbis file of one page (a second or two) it keeps the padding.
"""

from voxmlx.audio.byte_source import ByteSource

__all__ = ["OggLength"]

_HEADER_BYTES = 27
_MAX_PAGE_BYTES = _HEADER_BYTES + 255 + 255 * 255

_ENDS_STREAM = 4
_NO_POSITION = 2**64 - 1


class OggLength:
    """Watches the bytes of an Ogg file as they are read; remembers one page's worth."""

    def __init__(self, source: ByteSource) -> None:
        """If the source can seek, its end is read first."""
        tail = source.tail(_MAX_PAGE_BYTES)
        self._is_known = tail is not None
        self._tail = tail or b""

    def watch(self, piece: bytes) -> None:
        """See the next bytes of the file."""
        if not self._is_known:
            self._tail = (self._tail + piece)[-_MAX_PAGE_BYTES:]

    @property
    def position(self) -> int | None:
        """Return the position in samples at which the last whole page ends."""
        page = self._last_page()
        if page is None or page[1] == _NO_POSITION:
            return None
        return page[1]

    @property
    def is_cut(self) -> bool:
        """Return whether the file ends inside a page, or without saying that it ends."""
        page = self._last_page()
        return page is None or not page[0] & _ENDS_STREAM or page[2]

    def _last_page(self) -> tuple[int, int, bool] | None:
        """Return flags and position of the last whole page, and if one is cut after it."""
        is_cut = False
        at = len(self._tail)
        while (at := self._tail.rfind(b"OggS", 0, at)) >= 0:
            page = self._tail[at:]
            n_segments = page[26] if len(page) >= _HEADER_BYTES else 255
            sizes = page[_HEADER_BYTES : _HEADER_BYTES + n_segments]
            n_bytes = _HEADER_BYTES + n_segments + sum(sizes)
            if len(sizes) == n_segments and n_bytes <= len(page):
                return page[5], int.from_bytes(page[6:14], "little"), is_cut
            is_cut = True
        return None
