"""Whether an Ogg file is whole, and one stream; libsndfile does not tell."""

from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["OggLayout", "find_ogg"]

_HEADER_BYTES = 27
_STARTS_A_STREAM = 2


@dataclass(frozen=True, slots=True)
class OggLayout:
    """`is_cut`: the file ends inside a page. `is_joined`: streams follow streams."""

    is_cut: bool
    is_joined: bool


def find_ogg(file: BinaryIO) -> OggLayout | None:
    """Walk the pages of an Ogg file, without their content; None for other files.

    Moves the file's position. An hour of sound has a few thousand pages.
    """
    file.seek(0)
    if file.read(4) != b"OggS":
        return None
    n_file_bytes = file.seek(0, 2)
    position = 0
    has_sound = is_joined = False
    while position < n_file_bytes:
        file.seek(position)
        header = file.read(_HEADER_BYTES)
        if not header.startswith(b"OggS"):
            # A tag or padding behind the last page, or the first bytes of a page.
            return OggLayout(b"OggS".startswith(header), is_joined)
        if len(header) < _HEADER_BYTES:
            return OggLayout(True, is_joined)
        starts_stream = bool(header[5] & _STARTS_A_STREAM)
        # Streams that play together all start before the first page of content.
        is_joined = is_joined or (starts_stream and has_sound)
        has_sound = has_sound or not starts_stream
        n_segments = header[26]
        segments = file.read(n_segments)
        position += _HEADER_BYTES + n_segments + sum(segments)
        if len(segments) < n_segments:
            return OggLayout(True, is_joined)
    return OggLayout(position > n_file_bytes, is_joined)
