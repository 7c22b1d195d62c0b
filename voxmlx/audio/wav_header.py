"""What stands before the samples of a WAV, read front to back."""

import struct
from dataclasses import dataclass
from typing import Protocol

from voxmlx.errors import AudioError

__all__ = [
    "CUT_ADVICE",
    "FLOAT",
    "PCM",
    "RIFF_IDS",
    "WAV_HEAD_BYTES",
    "ByteStream",
    "WavHeader",
    "is_wav",
    "read_up_to",
    "read_wav_header",
]

# "RIFF", the size of the rest, "WAVE": what a WAV is known by.
WAV_HEAD_BYTES = 12
RIFF_IDS = (b"RIFF", b"RF64", b"BW64")

PCM, FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE

CUT_ADVICE = "fetch it again, or keep what is there by re-encoding it with ffmpeg"

# 16 to 40 bytes are usual; codecs add a few dozen.
_MAX_FMT_BYTES = 4096

# A writer that cannot seek back to fill in a size leaves a stand-in:
# 0xFFFFFFFF (ffmpeg), 0x7FFFF000 less a remainder (sox), 0x80000000 (arecord).
_STAND_INS = (
    range(0x7FFF_E000, 0x8000_0001),
    range(0xFFFF_FF00, 0x1_0000_0000),
)


class ByteStream(Protocol):
    """What an open binary file, a pipe and BytesIO have in common."""

    def read(self, n_bytes: int, /) -> bytes: ...
    def read1(self, n_bytes: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class WavHeader:
    """How a WAV's samples are written; `data_bytes` is None when unknown."""

    encoding: int
    rate: int
    n_channels: int
    bytes_per_sample: int
    data_start: int
    data_bytes: int | None


def is_wav(head: bytes) -> bool:
    """Whether what starts with these WAV_HEAD_BYTES is a WAV."""
    return head[:4] in RIFF_IDS and head[8:12] == b"WAVE"


def read_wav_header(stream: ByteStream, head: bytes, name: str) -> WavHeader:
    """Read a WAV up to its first sample; `head`, WAV_HEAD_BYTES, is read already.

    Raises AudioError for a header that ends early or contradicts itself.
    """
    riff_size: int = struct.unpack_from("<I", head, 4)[0]
    position = len(head)
    fmt = ds64 = b""
    while True:
        entry = read_up_to(stream, 8)
        if len(entry) < 8:
            raise _ends_early(name)
        entry_id, entry_size = struct.unpack("<4sI", entry)
        position += 8
        if entry_id == b"data":
            break
        padded_size = entry_size + entry_size % 2
        position += padded_size
        if entry_id not in (b"fmt ", b"ds64"):
            _skip(stream, padded_size)
            continue
        if entry_size > _MAX_FMT_BYTES:
            raise AudioError(
                f"{name} is a damaged WAV: its {entry_id.decode()!r} entry claims "
                f"{entry_size} bytes, expected about 20; write it again with ffmpeg"
            )
        content = read_up_to(stream, padded_size)
        if len(content) < padded_size:
            raise _ends_early(name)
        if entry_id == b"fmt ":
            fmt = content
        else:
            ds64 = content

    data_bytes: int | None = entry_size
    if len(ds64) >= 16 and entry_size == 0xFFFF_FFFF:
        # RF64 keeps here the sizes that do not fit into 32 bits.
        riff_size, data_bytes = struct.unpack_from("<QQ", ds64)
    elif _is_unknown(riff_size, entry_size, position):
        data_bytes = None
    return _parse_fmt(fmt, position, data_bytes, name)


def read_up_to(stream: ByteStream, n_bytes: int) -> bytes:
    """`n_bytes` of a stream, or fewer where it ends."""
    pieces: list[bytes] = []
    while n_bytes > 0 and (piece := stream.read(n_bytes)):
        pieces.append(piece)
        n_bytes -= len(piece)
    return b"".join(pieces)


def _skip(stream: ByteStream, n_bytes: int) -> None:
    while n_bytes > 0 and (piece := stream.read(min(n_bytes, 1 << 16))):
        n_bytes -= len(piece)


def _is_unknown(riff_size: int, data_size: int, position: int) -> bool:
    """Whether the size of the data was never filled in by its writer."""
    if data_size == 0:
        # It is a true zero where the RIFF size speaks of something behind it.
        return riff_size + 8 <= position or _is_stand_in(riff_size)
    return _is_stand_in(data_size)


def _is_stand_in(size: int) -> bool:
    return any(size in stand_ins for stand_ins in _STAND_INS)


def _parse_fmt(
    fmt: bytes, data_start: int, data_bytes: int | None, name: str
) -> WavHeader:
    if len(fmt) < 16:
        raise AudioError(
            f"{name} is a damaged WAV: it does not say how its samples are written "
            "('fmt '); write it again with ffmpeg"
        )
    encoding, n_channels, rate, _, step_bytes, _ = struct.unpack_from("<HHIIHH", fmt)
    if encoding == _EXTENSIBLE and len(fmt) >= 26:
        encoding = struct.unpack_from("<H", fmt, 24)[0]
    if n_channels == 0 or rate == 0:
        raise AudioError(
            f"{name} is a damaged WAV: its header claims {n_channels} channels at "
            f"{rate} Hz; write it again with ffmpeg"
        )
    bytes_per_sample, odd_bytes = divmod(step_bytes, n_channels)
    return WavHeader(
        encoding=encoding,
        rate=rate,
        n_channels=n_channels,
        bytes_per_sample=0 if odd_bytes else bytes_per_sample,
        data_start=data_start,
        data_bytes=data_bytes,
    )


def _ends_early(name: str) -> AudioError:
    return AudioError(f"{name} is a WAV that ends inside its header; {CUT_ADVICE}")
