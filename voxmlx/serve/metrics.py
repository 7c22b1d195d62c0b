"""Metrics of the server, for Prometheus."""

from collections.abc import Callable
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from voxmlx.serve.slot import Kind

__all__ = ["Metrics"]

_LAG_S = (0.01, 0.02, 0.05, 0.08, 0.16, 0.32, 0.64, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_STEP_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2, 0.5, 1.0, 5.0)


class Metrics:
    """A scheduler's `MetricsSink`, and what the app counts. A registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._sessions = Gauge(
            "voxmlx_sessions", "Clients that have a place.", registry=registry
        )
        self._waiting = Gauge(
            "voxmlx_waiting_seconds",
            "Sound that waits to be decoded, of all clients.",
            registry=registry,
        )
        self._lag = Histogram(
            "voxmlx_lag_seconds",
            "Time from when live sound came to when the id that needed it was known.",
            buckets=_LAG_S,
            registry=registry,
        )
        self._step = Histogram(
            "voxmlx_step_seconds",
            "Time of one step of all live sessions, or of one pass for files.",
            ["kind"],
            buckets=_STEP_S,
            registry=registry,
        )
        self._streams = Counter(
            "voxmlx_stepped_sessions",
            "Sessions that took part in steps, summed over steps.",
            ["kind"],
            registry=registry,
        )
        self._tokens = Counter(
            "voxmlx_tokens",
            "Ids decoded, one per 80 ms of sound.",
            ["kind"],
            registry=registry,
        )
        for kind in get_args(Kind):  # each is 0 before it is counted
            for each in (self._step, self._streams, self._tokens):
                each.labels(kind)
        self._errors = Counter(
            "voxmlx_errors", "Errors told to clients.", ["code"], registry=registry
        )

        self._recoveries = Counter(
            "voxmlx_recoveries",
            "Times that a stream went on after numbers that were not finite.",
            ["cause"],
            registry=registry,
        )

    def stepped(
        self, kind: Kind, seconds: float, n_streams: int, n_tokens: int, /
    ) -> None:
        self._step.labels(kind).observe(seconds)
        self._streams.labels(kind).inc(n_streams)
        self._tokens.labels(kind).inc(n_tokens)

    def lagged(self, seconds: float, /) -> None:
        self._lag.observe(seconds)

    def failed(self, code: str, /) -> None:
        self._errors.labels(code).inc()

    def recovered(self, cause: str, /) -> None:
        self._recoveries.labels(cause).inc()

    def watch(self, n_slots: Callable[[], int], waiting_ms: Callable[[], int]) -> None:
        """Read these gauges whenever metrics are asked for."""
        self._sessions.set_function(lambda: float(n_slots()))
        self._waiting.set_function(lambda: waiting_ms() / 1000)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
