"""Recordings of live: 16-bit WAV files that may have been cut anywhere."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from voxmlx.config import SAMPLE_RATE
from voxmlx.errors import AudioError

__all__ = ["HEADER_BYTES", "RecordedSound", "to_pcm16", "wav_header"]

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
HEADER_BYTES = _HEADER.size
_RIFF_EXTRA = HEADER_BYTES - 8
_MAX_BYTES = 0xFFFFFFFF - _RIFF_EXTRA  # 37 hours; readers then take all there is
_BYTES_PER_SAMPLE = 2

# What is read at a time: a minute.
_PIECE_SAMPLES = 60 * SAMPLE_RATE


def wav_header(n_bytes: int, n_channels: int = 1) -> bytes:
    """Return the 44 bytes before `n_bytes` of 16-bit sound at 16 kHz."""
    n_bytes = min(n_bytes, _MAX_BYTES)
    rate = SAMPLE_RATE
    width = _BYTES_PER_SAMPLE * n_channels
    return _HEADER.pack(
        *(b"RIFF", n_bytes + _RIFF_EXTRA, b"WAVE"),
        *(b"fmt ", 16, 1, n_channels, rate, rate * width, width, 16),
        *(b"data", n_bytes),
    )


def to_pcm16(samples: np.ndarray) -> np.ndarray:
    """Float samples as int16 of the same shape; what lies beyond full scale is clipped."""
    scaled = np.clip(np.rint(samples * 32768.0), -32768, 32767)
    return scaled.astype("<i2")


class RecordedSound:
    """The sound of a recording up to where it is cut, whatever its header says."""

    def __init__(self, path: Path) -> None:
        """Raises AudioError for a file that is missing or no recording of ours."""
        self._path = path
        try:
            with open(path, "rb") as file:
                head = file.read(HEADER_BYTES)
            n_file_bytes = path.stat().st_size
        except OSError as error:
            raise AudioError(f"{path} cannot be read: {error.strerror}") from None
        expected = wav_header(0)
        # Both sizes may be anything.
        kept = [*range(4), *range(8, HEADER_BYTES - 4)]
        if any(i < len(head) and head[i] != expected[i] for i in kept):
            raise AudioError(
                f"{path} is no recording of voxmlx live, expected a WAV of 16 bits, "
                "mono, at 16 kHz; name the file that --record made"
            )
        self.n_samples = max(0, n_file_bytes - HEADER_BYTES) // _BYTES_PER_SAMPLE

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield int16 [n], a minute or less at a time. Raises AudioError."""
        n_left = self.n_samples
        try:
            with open(self._path, "rb") as file:
                file.seek(HEADER_BYTES)
                while n_left:
                    yield _read(file, min(n_left, _PIECE_SAMPLES))
                    n_left -= min(n_left, _PIECE_SAMPLES)
        except OSError as error:
            raise AudioError(f"{self._path} cannot be read: {error.strerror}") from None


def _read(file: BinaryIO, n_samples: int) -> np.ndarray:
    return np.frombuffer(file.read(n_samples * _BYTES_PER_SAMPLE), "<i2")
