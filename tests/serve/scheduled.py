"""Clients of a scheduler without a network, and one that is stepped by hand."""

import queue
import time
from typing import Any

import numpy as np

from voxmlx import Checkpoint, Session
from voxmlx.events import Event, Finished
from voxmlx.serve.protocol import (
    Failed,
    Flushed,
    Lagging,
    Notice,
    Open,
    PushAudio,
)
from voxmlx.serve.scheduler import Scheduler
from voxmlx.serve.slot import Kind
from voxmlx.serve.stream_options import StreamOptions

__all__ = ["TIMEOUT_S", "Client", "Steps", "alone", "events"]

TIMEOUT_S = 60


class Client:
    """Somebody in a slot, who notes what is delivered."""

    def __init__(
        self,
        scheduler: Scheduler,
        options: StreamOptions | None = None,
        kind: Kind = "live",
    ):
        self.notices: queue.Queue[Notice] = queue.Queue()
        self.slot = scheduler.open_slot(self._hear, kind)
        self.options = options or StreamOptions()
        self.slot.submit(Open(self.options))

    def _hear(self, notices: list[Notice]) -> None:
        for notice in notices:
            self.notices.put(notice)

    def says(self, sound: np.ndarray, piece: int = 1600) -> None:
        for start in range(0, len(sound), piece):
            self.slot.submit(PushAudio(sound[start : start + piece]))

    def says_at_once(self, sound: np.ndarray) -> None:
        self.says(sound, len(sound))

    def until(self, kind: type) -> list[Notice]:
        got: list[Notice] = []
        while not got or not isinstance(got[-1], kind):
            got.append(self.notices.get(timeout=TIMEOUT_S))
            assert kind is Failed or not isinstance(got[-1], Failed), got[-1]
        return got


def events(notices: list[Notice]) -> list[Any]:
    return [n for n in notices if not isinstance(n, Lagging | Flushed)]


def alone(checkpoint: Checkpoint, sound: np.ndarray, **options: Any) -> list[Event]:
    session = Session(checkpoint, **options)
    return session.push(sound) + session.finish()


class Steps:
    """Notes what a scheduler steps, by hand and by a clock that is set."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.now = 0.0
        self.file_pass_s = 0.0
        self.kinds: list[Kind] = []
        self.n_lags = 0
        self.scheduler = Scheduler(
            checkpoint, max_sessions=8, metrics=self, clock=lambda: self.now
        )

    def stepped(self, kind: Kind, seconds: float, n_streams: int, n: int, /) -> None:
        self.kinds.append(kind)
        if kind == "file":
            self.now += self.file_pass_s

    def lagged(self, seconds: float, /) -> None:
        self.n_lags += 1

    def failed(self, code: str, /) -> None:
        raise AssertionError(code)

    def recovered(self, cause: str, /) -> None:
        raise AssertionError(cause)

    def tick(self, n: int = 1) -> list[Kind]:
        """What the next ticks step."""
        self.kinds = []
        for _ in range(n):
            self.scheduler.tick()
        return self.kinds

    def tick_until_finished(self, client: Client) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not any(isinstance(n, Finished) for n in client.notices.queue):
            assert time.monotonic() < end
            self.tick()
