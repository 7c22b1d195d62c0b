"""Bytes of a wire format -> 16 kHz sound, in pieces of any size."""

import base64
import binascii
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from voxmlx.audio.mixing import Mixer
from voxmlx.audio.resample import Resampler
from voxmlx.errors import AudioError, RequestError

__all__ = ["ENCODINGS", "PcmDecoder", "check_pcm_rate", "decode_base64"]

# From a telephone's up. Less would let a short message become very long sound.
_MIN_RATE, _MAX_RATE = 8_000, 192_000

Sound = NDArray[np.float32]


def _mulaw_table() -> Sound:
    """What each byte of G.711 mu-law stands for, [256]."""
    code = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = (((mantissa << 3) + 132) << exponent) - 132
    return (np.where(code & 128, -magnitude, magnitude) / 32768).astype(np.float32)


def _alaw_table() -> Sound:
    """What each byte of G.711 A-law stands for, [256]."""
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = (code >> 4) & 7, (code & 15).astype(np.int32)
    steps = (mantissa << 4) + 8 + np.where(exponent, 256, 0)
    magnitude = steps << np.maximum(exponent.astype(np.int32) - 1, 0)
    return (np.where(code & 128, magnitude, -magnitude) / 32768).astype(np.float32)


def _scaled(dtype: str, scale: float) -> Callable[[bytes], Sound]:
    def decode(payload: bytes) -> Sound:
        return np.frombuffer(payload, dtype).astype(np.float32) / np.float32(scale)

    return decode


def _looked_up(table: Sound) -> Callable[[bytes], Sound]:
    return lambda payload: table[np.frombuffer(payload, np.uint8)]


def _decode_s24(payload: bytes) -> Sound:
    """Three bytes each, as the upper three of a 32-bit number."""
    wide = np.zeros((len(payload) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(payload, np.uint8).reshape(-1, 3)
    return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2.0**31)


_UNSIGNED_8_BITS: Sound = (np.arange(256) / 128 - 1).astype(np.float32)

# Name -> bytes per sample, and how they become float32.
ENCODINGS: dict[str, tuple[int, Callable[[bytes], Sound]]] = {
    "pcm_s16le": (2, _scaled("<i2", 2.0**15)),
    "pcm_s24le": (3, _decode_s24),
    "pcm_s32le": (4, _scaled("<i4", 2.0**31)),
    "pcm_f16le": (2, _scaled("<f2", 1.0)),
    "pcm_f32le": (4, _scaled("<f4", 1.0)),
    "pcm_u8": (1, _looked_up(_UNSIGNED_8_BITS)),
    "pcm_mulaw": (1, _looked_up(_mulaw_table())),
    "pcm_alaw": (1, _looked_up(_alaw_table())),
}


class PcmDecoder:
    """One stream of bytes on its way to float32 [n] at 16 kHz, mono.

    Neither a sample nor the filter of another rate is disturbed by where the bytes
    were cut.
    """

    def __init__(self, encoding: str, rate: int, n_channels: int = 1) -> None:
        """`encoding` is one of ENCODINGS. Raises AudioError for an impossible rate."""
        n_bytes, self._decode = ENCODINGS[encoding]
        self._n_bytes = n_bytes * n_channels
        self._mixer = Mixer(n_channels, rate)
        self._resampler = Resampler(rate)
        self._pending = b""

    def push(self, payload: bytes) -> Sound:
        """Raises AudioError for NaN or infinite samples; none of them is heard."""
        whole = self._pending + payload
        n = len(whole) // self._n_bytes * self._n_bytes
        samples = self._decode(whole[:n])
        if not np.isfinite(samples).all():
            raise AudioError("the sound has NaN or infinite samples, expected finite")
        self._pending = whole[n:]
        mono = self._mixer.push(samples.reshape(-1, self._mixer.n_channels))
        return self._resampler.push(mono) if len(mono) else mono

    def flush(self) -> Sound:
        """Return the samples that are still held back; the stream ends here."""
        mono = self._mixer.flush()
        held = self._resampler.push(mono) if len(mono) else mono
        return np.append(held, self._resampler.flush())


def check_pcm_rate(rate: int) -> None:
    """Raise AudioError for a rate in Hz that no client of ours needs."""
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise AudioError(
            f"the sound has a rate of {rate} Hz, expected {_MIN_RATE} to {_MAX_RATE}"
        )


def decode_base64(text: str) -> bytes:
    """Return the bytes of base64, with or without line breaks. Raises RequestError."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            "audio is no base64; send the bytes of the sound in standard base64",
            code="invalid_audio",
            param="audio",
        ) from None
