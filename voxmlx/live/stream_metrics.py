"""Cost and lag of a live stream: figures for people and for --stats."""

import math
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from voxmlx.config import AUDIO_TOKEN_MS, SAMPLE_RATE
from voxmlx.memory import peak_bytes

__all__ = ["Figures", "StreamMetrics", "peak_memory_mb", "percentile"]

# The latest half hour: what is kept does not grow with the stream.
_N_KEPT = 30 * 60 * 1000 // AUDIO_TOKEN_MS

# The level is that of the latest tenth of a second.
_LEVEL_SAMPLES = SAMPLE_RATE // 10

SILENT_DB = -96.0  # below what 16 bits can say


@dataclass(frozen=True, slots=True)
class Figures:
    """A stream's figures over its latest half hour.

    `lag_*` is from the moment a token's sound was complete to its events; `step_*` is
    the decoder's time per audio token. `tokens_per_s` is what the machine could do:
    real time needs 12.5.
    """

    heard_s: float
    n_tokens: int
    lag_p50_ms: float
    lag_p95_ms: float
    step_p50_ms: float
    step_p95_ms: float
    tokens_per_s: float
    peak_memory_mb: float


class StreamMetrics:
    """Gathers figures while a stream runs. Bounded memory."""

    def __init__(self) -> None:
        self.level_db = SILENT_DB
        self._n_samples = 0
        self._n_tokens = 0
        self._lags: deque[float] = deque(maxlen=_N_KEPT)
        self._steps: deque[float] = deque(maxlen=_N_KEPT)

    def pushed(self, samples: np.ndarray) -> None:
        """Note sound as it comes in, before it waits to be decoded."""
        self._n_samples += len(samples)
        latest = samples[-_LEVEL_SAMPLES:]
        power = float(np.mean(np.square(latest))) if len(latest) else 0.0
        self.level_db = max(SILENT_DB, 10 * math.log10(power)) if power else SILENT_DB

    def stepped(self, n_tokens: int, seconds: float, lags: Sequence[float]) -> None:
        """Note a push: tokens it decoded, what it took, and the lag of each token."""
        self._n_tokens += n_tokens
        self._lags.extend(lags)
        self._steps.extend([seconds / n_tokens] * n_tokens if n_tokens else [])

    @property
    def lag_s(self) -> float:
        """Return the lag of the latest token in seconds."""
        return self._lags[-1] if self._lags else 0.0

    def figures(self) -> Figures:
        busy_s = sum(self._steps)
        return Figures(
            heard_s=self._n_samples / SAMPLE_RATE,
            n_tokens=self._n_tokens,
            lag_p50_ms=1000 * percentile(self._lags, 50),
            lag_p95_ms=1000 * percentile(self._lags, 95),
            step_p50_ms=1000 * percentile(self._steps, 50),
            step_p95_ms=1000 * percentile(self._steps, 95),
            tokens_per_s=len(self._steps) / busy_s if busy_s else 0.0,
            peak_memory_mb=peak_memory_mb(),
        )


def percentile(values: Collection[float], percent: float) -> float:
    """The smallest value that at least `percent` % are not above; 0 of nothing."""
    if not values:
        return 0.0
    array = np.fromiter(values, np.float64, len(values))
    return float(np.percentile(array, percent, method="inverted_cdf"))


def peak_memory_mb() -> float:
    """The most memory this process ever held, in MB of 2^20 bytes."""
    return peak_bytes() / 2**20
