"""Items of several channels -> one row, in order of their starts."""

from typing import Generic, TypeVar

__all__ = ["TimeOrder"]

T = TypeVar("T")


class TimeOrder(Generic[T]):
    """Items that wait until no other channel can have one that starts earlier.

    Each channel gives its items in order. Example: channel 1 has an item from 2 s on,
    and channel 2 is certain up to 1.5 s. The item waits until channel 2 has given what
    starts before 2 s, or is certain up to 2 s.
    """

    def __init__(self, n_channels: int) -> None:
        self._waiting: list[list[tuple[int, T]]] = [[] for _ in range(n_channels)]
        self._certain_ms: list[float] = [0.0] * n_channels

    def push(self, channel: int, start_ms: int, item: T) -> None:
        """Add an item of a channel, counted from 0."""
        self._waiting[channel].append((start_ms, item))

    def advance(self, channel: int, certain_ms: float) -> None:
        """Note that nothing more of a channel will start before `certain_ms`."""
        self._certain_ms[channel] = certain_ms

    def take(self) -> list[tuple[int, T]]:
        """Return what is certain, as pairs of a channel and an item."""
        taken: list[tuple[int, T]] = []
        while True:
            ready = [
                (items[0][0], channel)
                for channel, items in enumerate(self._waiting)
                if items
            ]
            if not ready:
                return taken
            start_ms, channel = min(ready)
            if any(
                not items and certain_ms < start_ms
                for items, certain_ms in zip(
                    self._waiting, self._certain_ms, strict=True
                )
            ):
                return taken
            taken.append((channel, self._waiting[channel].pop(0)[1]))
