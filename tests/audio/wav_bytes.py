"""WAV files byte by byte, whole and otherwise."""

import io
import struct

import numpy as np

__all__ = ["ENCODINGS", "Trickle", "encode", "riff_part", "wav_bytes"]

# Name: (the header's encoding, bytes a sample).
ENCODINGS = {
    "u8": (1, 1),
    "s16": (1, 2),
    "s24": (1, 3),
    "s32": (1, 4),
    "f32": (3, 4),
    "f64": (3, 8),
}


def encode(sound: np.ndarray, encoding: str) -> bytes:
    """Samples in [-1, 1) of any shape, interleaved, in one of ENCODINGS."""
    match encoding:
        case "u8":
            return np.round(sound * 127 + 128).astype(np.uint8).tobytes()
        case "s16":
            return np.round(sound * 32767).astype("<i2").tobytes()
        case "s24":
            wide = np.round(sound.astype(np.float64) * (2**23 - 1)).astype("<i4")
            return wide.reshape(-1, 1).view(np.uint8)[:, :3].tobytes()
        case "s32":
            wide = np.round(sound.astype(np.float64) * (2**31 - 1))
            return wide.astype("<i4").tobytes()
        case "f32":
            return sound.astype("<f4").tobytes()
        case _:
            return sound.astype("<f8").tobytes()


def riff_part(name: bytes, content: bytes) -> bytes:
    """A labelled part of a RIFF file, padded to an even length."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def wav_bytes(
    pcm: bytes,
    *,
    rate: int = 16_000,
    n_channels: int = 1,
    encoding: str = "s16",
    extensible: bool = False,
    before: bytes = b"",
    after: bytes = b"",
    riff_size: int | None = None,
    data_size: int | None = None,
) -> bytes:
    """A WAV of `pcm`, with parts before and after it and with any sizes claimed."""
    code, bytes_per_sample = ENCODINGS[encoding]
    step = bytes_per_sample * n_channels
    fmt = struct.pack(
        "<HHIIHH",
        0xFFFE if extensible else code,
        n_channels,
        rate,
        rate * step & 0xFFFF_FFFF,
        step,
        bytes_per_sample * 8,
    )
    if extensible:
        guid_end = bytes.fromhex("000000001000800000aa00389b71")
        fmt += struct.pack("<HHIH", 22, bytes_per_sample * 8, 0, code) + guid_end
    padding = b"\0" * (len(pcm) % 2)
    body = b"WAVE" + riff_part(b"fmt ", fmt) + before + b"data"
    total = len(body) + 4 + len(pcm) + len(padding) + len(after)
    return (
        b"RIFF"
        + struct.pack("<I", total if riff_size is None else riff_size)
        + body
        + struct.pack("<I", len(pcm) if data_size is None else data_size)
        + pcm
        + padding
        + after
    )


class Trickle(io.BytesIO):
    """A stream whose `read1` gives no more than the next of `sizes`, in turn."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        super().__init__(content)
        self._sizes = sizes
        self._turn = 0

    def read1(self, size: int | None = -1, /) -> bytes:
        limit = self._sizes[self._turn % len(self._sizes)]
        self._turn += 1
        assert size is not None
        return self.read(min(size, limit))
