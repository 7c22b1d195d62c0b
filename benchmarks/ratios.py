"""Figures of interleaved runs: medians, percentiles, ratios with their spread."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from voxmlx.live.stream_metrics import percentile

__all__ = ["Ratio", "Spread"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of what a step took, in ms."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, taken: Sequence[float]) -> "Spread":
        p50, p95, p99 = (percentile(taken, p) for p in (50, 95, 99))
        return cls(p50, p95, p99, max(taken, default=0.0))


@dataclass(frozen=True, slots=True)
class Ratio:
    """Theirs over ours, pair by pair: above one where ours is faster."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, theirs: Sequence[float], ours: Sequence[float]) -> "Ratio":
        """Make a ratio of interleaved runs; both have as many."""
        pairs = [a / b for a, b in zip(theirs, ours, strict=True)]
        return cls(median(pairs), min(pairs), max(pairs))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.min:.2f}-{self.max:.2f})"
