"""Detection of speech, for the guards of the decoding loop."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxmlx.audio.noise_floor import MIN_FLOOR_DBFS, NoiseFloor
from voxmlx.config import SAMPLE_RATE

__all__ = ["SpeechDetector"]

_WINDOW_MS = 20
_WINDOW_SAMPLES = SAMPLE_RATE * _WINDOW_MS // 1000
# Voices have most of their power here; mains hum, rumble and hiss have not.
_BAND_HZ = (200, 4000)

# A syllable stands out from the noise for at least as long: clicks and keys do not.
_SYLLABLE_WINDOWS = 3
# Speech rises and falls by so much within four seconds; noise, hum and a held chord
# do not.
_MODULATION_DB = 12.0
_MODULATION_WINDOWS = 4000 // _WINDOW_MS
# Speakers pause for two seconds.
_MEMORY_MS = 2500
# Decisions that are kept: the longest delay, the memory and a step of 2.6 s.
_KEPT_WINDOWS = 10_000 // _WINDOW_MS


class SpeechDetector:
    """Speech or not at every moment of one stream, by band, duration and modulation.

    Level alone decides nothing. Speech is a sound between 200 and 4000 Hz that is
    above the noise for 60 ms, while the level of that band has changed by 12 dB within
    four seconds. What is decided about a moment depends on the sound before it alone,
    and not on the pieces the sound came in. Example: a click of one sample, an hour of
    white noise and mains hum are no speech; a syllable of 100 ms after a pause is.
    """

    def __init__(self) -> None:
        self._pending = np.zeros(0, np.float32)
        self._levels = np.zeros(0)  # of the last `_MODULATION_WINDOWS` - 1 windows
        # The last `_KEPT_WINDOWS` decisions, and up to as many before them.
        self._flags = bytearray()
        self._n_windows = 0
        self._floor = NoiseFloor(_WINDOW_MS)
        self._n_active = 0

    def push(self, samples: NDArray[Any]) -> None:
        """Hear more: [n] float32 in [-1, 1], 16 kHz."""
        sound = np.concatenate([self._pending, samples])
        n_windows = len(sound) // _WINDOW_SAMPLES
        n = n_windows * _WINDOW_SAMPLES
        self._pending = sound[n:].copy()
        if not n_windows:
            return
        levels = _band_dbfs(sound[:n].reshape(n_windows, _WINDOW_SAMPLES))
        n_before = len(self._levels)
        levels = np.concatenate([self._levels, levels])
        self._levels = levels[-_MODULATION_WINDOWS + 1 :].copy()
        for i in range(n_before, len(levels)):
            is_syllable = self._is_syllable(float(levels[i]))
            recent = levels[max(0, i + 1 - _MODULATION_WINDOWS) : i + 1]
            is_modulated = float(np.ptp(recent)) >= _MODULATION_DB
            self._flags.append(is_syllable and is_modulated)
        self._n_windows += n_windows
        if len(self._flags) > 2 * _KEPT_WINDOWS:
            del self._flags[:-_KEPT_WINDOWS]

    def is_speech(self, end_ms: int) -> bool:
        """Return whether somebody spoke in the 2.5 s before a moment."""
        first = self._n_windows - len(self._flags)
        start = max(
            (end_ms - _MEMORY_MS) // _WINDOW_MS, self._n_windows - _KEPT_WINDOWS, first
        )
        end = max(end_ms // _WINDOW_MS, start)
        return True in self._flags[start - first : end - first]

    def _is_syllable(self, level: float) -> bool:
        """Return whether this window goes on with what has lasted long enough."""
        # A count without end would grow with the stream.
        n_active = min(self._n_active + 1, _SYLLABLE_WINDOWS)
        self._n_active = n_active if self._floor.exceeded_by(level) else 0
        return self._n_active >= _SYLLABLE_WINDOWS


def _band_dbfs(windows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the level in the band of voices of windows [n, 320]: [n]."""
    spectrum = np.fft.rfft(windows.astype(np.float64) * _HANN)
    power = (spectrum.real**2 + spectrum.imag**2)[:, _FIRST_BIN:_LAST_BIN]
    # Row by row, so that the order of a sum never depends on how many rows there are.
    sums = [math.fsum(row) for row in power.tolist()]
    with np.errstate(divide="ignore"):
        levels = 10 * np.log10(np.array(sums) / _FULL_SCALE)
    return np.maximum(levels, MIN_FLOOR_DBFS)


_HANN = np.hanning(_WINDOW_SAMPLES + 1)[:-1]
_FIRST_BIN, _LAST_BIN = (hz * _WINDOW_MS // 1000 for hz in _BAND_HZ)
# A full-scale square wave in the band would have 0 dBFS.
_FULL_SCALE = _WINDOW_SAMPLES * float((_HANN**2).sum()) / 2
