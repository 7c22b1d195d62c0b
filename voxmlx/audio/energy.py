"""Speech or silence by energy, decided as the sound comes."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxmlx.audio.noise_floor import MIN_FLOOR_DBFS, NoiseFloor
from voxmlx.config import SAMPLE_RATE

__all__ = ["EnergyDetector"]

WINDOW_MS = 10
_WINDOW_SAMPLES = SAMPLE_RATE * WINDOW_MS // 1000


class EnergyDetector:
    """Speech or not for every 10 ms of one stream, against a noise floor it tracks.

    What it says about a moment depends on the sound up to it alone, and not on the
    pieces the sound came in. It remembers the last `memory_ms`.
    """

    def __init__(self, memory_ms: int = 40_000) -> None:
        self._pending = np.zeros(0, np.int64)
        # The last `_n_memory` decisions, and up to as many before them.
        self._flags = bytearray()
        self._n_memory = memory_ms // WINDOW_MS
        self._n_windows = 0
        self._floor = NoiseFloor(WINDOW_MS)

    @property
    def decided_ms(self) -> int:
        """Return the stream time up to which it has decided, in ms."""
        return self._n_windows * WINDOW_MS

    def push(self, samples: NDArray[Any]) -> None:
        """Hear more: [n] float32 in [-1, 1], 16 kHz."""
        # Whole numbers make the sums exact, so that no split can change a bit.
        pcm = np.rint(np.clip(samples, -8, 8) * 32768).astype(np.int64)
        pcm = np.concatenate([self._pending, pcm])
        n_windows = len(pcm) // _WINDOW_SAMPLES
        n = n_windows * _WINDOW_SAMPLES
        self._pending = pcm[n:].copy()
        windows = pcm[:n].reshape(n_windows, _WINDOW_SAMPLES)
        power = _WINDOW_SAMPLES * (windows**2).sum(axis=1) - windows.sum(axis=1) ** 2
        for value in power.tolist():
            self._flags.append(self._decide(value))
        self._n_windows += n_windows
        if len(self._flags) > 2 * self._n_memory:
            del self._flags[: -self._n_memory]

    def is_speech(self, start_ms: int, end_ms: int) -> bool:
        """Return whether any sound in [start_ms, end_ms) was speech."""
        return True in self._between(start_ms, end_ms)[1]

    def onset(self, start_ms: int, end_ms: int, gap_ms: int) -> int | None:
        """Return the stream time at which the last speech in [start_ms, end_ms) begins.

        A stretch may hold gaps shorter than `gap_ms`. None if there is no speech.
        """
        begin, flags = self._between(start_ms, end_ms)
        first: int | None = None
        n_quiet = 0
        for i in range(len(flags) - 1, -1, -1):
            if flags[i]:
                first, n_quiet = i, 0
            elif first is not None:
                n_quiet += 1
                if n_quiet * WINDOW_MS >= gap_ms:
                    break
        if first is None:
            return None
        return max(start_ms, (begin + first) * WINDOW_MS)

    def _between(self, start_ms: int, end_ms: int) -> tuple[int, bytearray]:
        """First index and decisions of what is remembered of [start, end)."""
        first = self._n_windows - len(self._flags)
        start = max(start_ms // WINDOW_MS, first, self._n_windows - self._n_memory)
        end = max(end_ms // WINDOW_MS, start)
        return start, self._flags[start - first : end - first]

    def _decide(self, power: int) -> bool:
        """`power` is the variance of a window times its length squared."""
        full_scale = (_WINDOW_SAMPLES * 32768) ** 2
        level = 10 * math.log10(power / full_scale) if power else -math.inf
        return self._floor.exceeded_by(max(level, MIN_FLOOR_DBFS))
