"""A sink for the figures of a scheduler."""

from typing import Protocol

from voxmlx.serve.slot import Kind

__all__ = ["MetricsSink", "NullMetrics"]


class MetricsSink(Protocol):
    """A receiver of the scheduler's figures. Called on the scheduler's thread."""

    def stepped(
        self, kind: Kind, seconds: float, n_streams: int, n_tokens: int, /
    ) -> None: ...
    def lagged(self, seconds: float, /) -> None: ...
    def failed(self, code: str, /) -> None: ...
    def recovered(self, cause: str, /) -> None: ...


class NullMetrics:
    """A sink that counts nothing."""

    def stepped(
        self, kind: Kind, seconds: float, n_streams: int, n_tokens: int, /
    ) -> None: ...
    def lagged(self, seconds: float, /) -> None: ...
    def failed(self, code: str, /) -> None: ...
    def recovered(self, cause: str, /) -> None: ...
