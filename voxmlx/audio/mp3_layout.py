"""Where the sound of an MP3 starts, and how much of it there should be."""

import os
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["Mp3Layout", "find_mp3"]

# How far into its frame of MPEG sound an Xing entry can stand: header, checksum
# and side information come before it.
_XING_REACH_BYTES = 4 + 2 + 32

# Frames are at most 1441 bytes, and some encoders leave out the first.
_JOINED_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Mp3Layout:
    """What the head of an MP3 says; byte positions count from the file's start."""

    sound_start: int
    is_cut: bool
    is_joined: bool


def find_mp3(file: BinaryIO) -> Mp3Layout | None:
    """The layout of an MP3, or None for any other file. Moves the file's position."""
    start, head = _skip_tags(file, 0)
    if not _is_mpeg_header(head):
        return None
    promised_bytes = _xing_bytes(head)
    if promised_bytes is None:
        return Mp3Layout(start, is_cut=False, is_joined=False)
    n_file_bytes = os.fstat(file.fileno()).st_size
    end, next_head = _skip_tags(file, start + promised_bytes)
    return Mp3Layout(
        sound_start=start,
        # Some encoders count their tags, so the whole file is taken as room.
        is_cut=promised_bytes > n_file_bytes,
        is_joined=n_file_bytes - end > _JOINED_BYTES and _is_mpeg_header(next_head),
    )


def _skip_tags(file: BinaryIO, position: int) -> tuple[int, bytes]:
    """The first position from here on that starts no ID3v2 tag, and its bytes."""
    while True:
        file.seek(position)
        head = file.read(_XING_REACH_BYTES + 16)
        if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 0x7F:
            return position, head
        size = 0
        for seven_bits in head[6:10]:
            size = size << 7 | seven_bits
        has_footer = head[5] & 0x10
        position += 10 + size + (10 if has_footer else 0)


def _is_mpeg_header(head: bytes) -> bool:
    """Eleven ones, then a version, layer, bit rate and sample rate that exist."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate, sample_rate = head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and layer != 0 and 0 < bit_rate < 15 and sample_rate != 3


def _xing_bytes(head: bytes) -> int | None:
    """Bytes of sound according to the Xing or Info entry of the first frame."""
    for label in (b"Xing", b"Info"):
        at = head.find(label, 4, _XING_REACH_BYTES + len(label))
        if at < 0:
            continue
        flags = int.from_bytes(head[at + 4 : at + 8], "big")
        has_frames, has_bytes = flags & 1, flags & 2
        if has_bytes:
            at += 12 if has_frames else 8
            return int.from_bytes(head[at : at + 4], "big")
    return None
