"""The level of one stream in the last minute, by stream time."""

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxmlx.config import SAMPLE_RATE

__all__ = ["SILENT_DBFS", "SoundLevels"]

_WINDOW_MS = 10
_WINDOW_SAMPLES = SAMPLE_RATE * _WINDOW_MS // 1000
# A word is known so long after it was said, at most, and lasts no longer.
_MEMORY_MS = 60_000

SILENT_DBFS = -96.0
"""Nothing is quieter: below what 16 bits can say."""


class SoundLevels:
    """The power of every 10 ms of one stream, for the last minute.

    What it says does not depend on the pieces the sound came in.
    """

    def __init__(self) -> None:
        self._pending = np.zeros(0, np.float32)
        self._powers: deque[float] = deque(maxlen=_MEMORY_MS // _WINDOW_MS)
        self._n_windows = 0

    def push(self, samples: NDArray[Any]) -> None:
        """Hear more: [n] float32 in [-1, 1], 16 kHz."""
        sound = np.concatenate([self._pending, samples])
        n_windows = len(sound) // _WINDOW_SAMPLES
        n = n_windows * _WINDOW_SAMPLES
        self._pending = sound[n:].astype(np.float32)
        windows = sound[:n].reshape(n_windows, _WINDOW_SAMPLES)
        sums = np.einsum("ij,ij->i", windows, windows, dtype=np.float64)
        self._powers.extend((sums / _WINDOW_SAMPLES).tolist())
        self._n_windows += n_windows

    def level_dbfs(self, start_ms: int, end_ms: int) -> float:
        """Return the level between two moments; SILENT_DBFS of what is not known."""
        first = self._n_windows - len(self._powers)
        start = max(0, start_ms // _WINDOW_MS - first)
        end = min(len(self._powers), -(-end_ms // _WINDOW_MS) - first)
        powers = [self._powers[i] for i in range(start, end)]
        power = sum(powers) / len(powers) if powers else 0.0
        return max(SILENT_DBFS, 10 * math.log10(power)) if power > 0 else SILENT_DBFS
