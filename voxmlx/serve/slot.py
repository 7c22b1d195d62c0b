"""One client's place in the scheduler, and the stream that is open in it."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, Protocol

from voxmlx.config import SAMPLE_RATE
from voxmlx.decoding.hotwords import HotwordTrie
from voxmlx.serve.protocol import Command, Flushed, Notice
from voxmlx.session import Session

__all__ = ["Deliver", "Kind", "Opening", "Slot", "SlotStream"]

Kind = Literal["live", "file"]

Deliver = Callable[[list[Notice]], None]

# Arrivals of sound are told apart to so much stream time: a client may send samples
# one by one.
_ARRIVAL_MS = 10

# Messages that come together: what a client records at once, or a network held up.
_TOGETHER_S = 0.005


class SlotOwner(Protocol):
    """A table of slots, as one of them uses it."""

    def submit(self, slot: "Slot", command: Command, /) -> None: ...
    def release(self, slot: "Slot", /) -> None: ...


@dataclass(slots=True)
class Opening:
    """A stream that waits for its hot words, and for the prefix of its delay."""

    hotwords: Future[HotwordTrie] | None


@dataclass(slots=True)
class SlotStream:
    """A session, and what its client waits for. The scheduler's thread's alone."""

    session: Session
    # (stream time at its end, when it came) of sound that no id has spoken about.
    arrivals: deque[tuple[int, float]] = field(default_factory=deque[tuple[int, float]])
    came_at: float | None = None  # of the latest sound
    n_came: int = 0  # samples that came with it, at once
    began_at: float | None = None  # when the first of those came
    flushing: Flushed | None = None
    is_ending: bool = False

    def note_arrival(self, end_ms: int, came_at: float, n_samples: int = 0) -> None:
        """Note that sound of the client, or a flush, came that ends at `end_ms`."""
        if n_samples:
            if self.began_at is None or came_at - self.began_at >= _TOGETHER_S:
                self.began_at, self.n_came = came_at, 0
            self.n_came += n_samples
            self.came_at = came_at
        last = self.arrivals[-1][0] if self.arrivals else -1
        if last // _ARRIVAL_MS == end_ms // _ARRIVAL_MS:
            self.arrivals.pop()
        self.arrivals.append((end_ms, came_at))

    def lag_s(self, time_ms: int, now: float) -> float | None:
        """Return how long ago the sound came that an id about `time_ms` waited for.

        None where it spoke about silence of ours.
        """
        needed_ms = time_ms + self.session.delay_ms
        while len(self.arrivals) > 1 and self.arrivals[0][0] < needed_ms:
            self.arrivals.popleft()
        if not self.arrivals or self.arrivals[0][0] < needed_ms:
            return None
        return now - self.arrivals[0][1]

    @property
    def expected_at(self) -> float | None:
        """Return when the next audio token will be whole, if sound goes on as it came.

        It comes in pieces: in pieces of 40 ms, a token that lacks 2.5 ms is whole in 40.
        """
        if self.came_at is None or self.is_ending:
            return None
        n_piece = max(1, self.n_came)
        n_pieces = -(-self.session.samples_wanted // n_piece)
        return self.came_at + n_pieces * n_piece / SAMPLE_RATE

    @property
    def is_holding(self) -> bool:
        """Return whether later commands wait for a flush or for the end."""
        return self.flushing is not None or self.is_ending


class Slot:
    """One client's place: commands go in, on any thread; notices are delivered.

    Streams follow each other in it, in the order of the commands. Nothing here waits:
    who sends sound keeps an eye on `waiting_ms`.
    """

    def __init__(self, owner: "SlotOwner", deliver: Deliver, kind: Kind) -> None:
        """Made by `Scheduler.open_slot`."""
        self._owner = owner
        self.kind: Kind = kind
        self.deliver = deliver
        self.inbox: deque[tuple[Command, float]] = deque()
        self.n_inbox_samples = 0
        self.n_stream_samples = 0
        self.opening: Opening | None = None
        self.stream: SlotStream | None = None
        self.lag_sent_at = 0.0
        self.is_released = False

    @property
    def waiting_ms(self) -> int:
        """Sound sent, and silence asked for, that has not been decoded."""
        n = self.n_inbox_samples + self.n_stream_samples
        return n * 1000 // SAMPLE_RATE

    @property
    def n_waiting_commands(self) -> int:
        """Commands that the decoder's thread has not seen."""
        return len(self.inbox)

    def submit(self, command: Command) -> None:
        self._owner.submit(self, command)

    def release(self) -> None:
        """Give the place back; a stream that is open is dropped. Any number of times."""
        self._owner.release(self)
