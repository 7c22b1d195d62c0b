"""Sound at any rate -> 16 kHz, band-limited, in pieces."""

import numpy as np
import soxr

from voxmlx.config import SAMPLE_RATE
from voxmlx.errors import AudioError

__all__ = ["Resampler", "check_rate"]

# Wide enough for any recording; what lies outside is a damaged header.
_MIN_RATE = 1_000
_MAX_RATE = 1_000_000


class Resampler:
    """One stream on its way to 16 kHz: mono, or each of its channels alone.

    The filter's state is kept between pieces: however the sound is cut, the
    output is the same bit for bit, and it starts at the time the input starts.
    At 16 kHz samples pass through untouched.
    """

    def __init__(self, rate: int, n_channels: int | None = None) -> None:
        """`rate` is the input's, in Hz. Raises AudioError if no sound has it.

        With `n_channels` pieces are [n, channels], without [n].
        """
        check_rate(rate, "the sound")
        self._stream = None
        if rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(
                rate,
                SAMPLE_RATE,
                num_channels=n_channels or 1,
                dtype="float32",
                quality="HQ",
            )
        self._nothing = np.zeros((0, n_channels) if n_channels else 0, np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Float32 [n] at the input's rate -> float32 [m] at 16 kHz.

        The filter looks ahead, so the last few milliseconds come with the next
        call or with `flush`.
        """
        if self._stream is None:
            return samples
        if samples.ndim > 1:
            samples = np.ascontiguousarray(samples)
        return self._stream.resample_chunk(samples)

    def flush(self) -> np.ndarray:
        """Return the samples that the filter still holds; the stream ends here."""
        if self._stream is None:
            return self._nothing
        return self._stream.resample_chunk(self._nothing, last=True)


def check_rate(rate: int, name: str) -> None:
    """Raise AudioError for a rate in Hz that no sound has; `name` is of the sound."""
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise AudioError(
            f"{name} claims a sample rate of {rate} Hz, expected {_MIN_RATE} to "
            f"{_MAX_RATE} Hz; write it again with ffmpeg"
        )
