"""One thread that owns MLX and steps the streams of all clients together."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import mlx.core as mx

from voxmlx.batch import Batch
from voxmlx.checkpoint import Checkpoint
from voxmlx.config import SAMPLE_RATE, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.errors import RequestError, VoxmlxError
from voxmlx.events import Event, Finished, Recovered, TokenDecoded
from voxmlx.serve.protocol import (
    Command,
    Failed,
    Finish,
    Flush,
    Flushed,
    Lagging,
    Notice,
    Open,
    PushAudio,
)
from voxmlx.session import Session

__all__ = ["MetricsSink", "Scheduler", "Slot"]

_log = logging.getLogger("voxmlx.serve")

# Decoded to bring out the last words of a stream, about: a delay and 0.8 s.
_SILENCE_SAMPLES = 20 * SAMPLES_PER_AUDIO_TOKEN

Deliver = Callable[[list[Notice]], None]

# How often a client is told how far behind it is.
_LAG_INTERVAL_S = 1.0


class MetricsSink(Protocol):
    """Who wants to know what the scheduler does. Called on its thread."""

    def stepped(self, seconds: float, n_streams: int, n_tokens: int, /) -> None: ...
    def lagged(self, seconds: float, /) -> None: ...
    def failed(self, code: str, /) -> None: ...
    def recovered(self, cause: str, /) -> None: ...


class _NullMetrics:
    def stepped(self, seconds: float, n_streams: int, n_tokens: int, /) -> None: ...
    def lagged(self, seconds: float, /) -> None: ...
    def failed(self, code: str, /) -> None: ...
    def recovered(self, cause: str, /) -> None: ...


@dataclass(slots=True)
class _Stream:
    """A session, and what its client waits for. The scheduler's thread's alone."""

    session: Session
    # (stream time at its end, when it came) of sound that no id has spoken about.
    arrivals: deque[tuple[int, float]] = field(default_factory=deque[tuple[int, float]])
    flushing: Flushed | None = None
    is_ending: bool = False

    @property
    def is_holding(self) -> bool:
        """Whether commands wait until what was asked for is done."""
        return self.flushing is not None or self.is_ending


class Slot:
    """One client's place: commands go in, on any thread; notices are delivered.

    Streams follow each other in it, in the order of the commands. Nothing here waits:
    who sends sound keeps an eye on `waiting_ms`.
    """

    def __init__(self, scheduler: "Scheduler", deliver: Deliver) -> None:
        """Made by `Scheduler.open_slot`."""
        self._scheduler = scheduler
        self.deliver = deliver
        self.inbox: deque[tuple[Command, float]] = deque()
        self.n_inbox_samples = 0
        self.n_stream_samples = 0
        self.stream: _Stream | None = None
        self.lag_sent_at = 0.0
        self.is_released = False

    @property
    def waiting_ms(self) -> int:
        """Sound sent, and silence asked for, that has not been decoded."""
        n = self.n_inbox_samples + self.n_stream_samples
        return n * 1000 // SAMPLE_RATE

    def submit(self, command: Command) -> None:
        self._scheduler.submit(self, command)

    def release(self) -> None:
        """Give the place back; a stream that is open is dropped. Any number of times."""
        self._scheduler.release(self)


class Scheduler:
    """Slots for `max_sessions` clients, and the thread that decodes for them.

    Every tick takes all streams with a whole audio token one id further, in one pass.
    A client that is slow, silent or gone delays nobody.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        max_sessions: int,
        guards: Sequence[str] = (),
        kv_bits: int | None = None,
        metrics: MetricsSink | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_sessions = max_sessions
        self.is_draining = False
        self._checkpoint = checkpoint
        self._guards = tuple(guards)
        self._kv_bits = kv_bits
        self._metrics = metrics or _NullMetrics()
        self._clock = clock
        self._batch = Batch(checkpoint.model)
        self._slots: set[Slot] = set()
        self._by_session: dict[Session, Slot] = {}
        self._condition = threading.Condition()
        self._is_woken = False
        self._is_stopping = False
        self._thread = threading.Thread(
            target=self._run, name="voxmlx-decoder", daemon=True
        )

    @property
    def n_slots(self) -> int:
        """Clients that have a place."""
        return len(self._slots)

    @property
    def n_streams(self) -> int:
        """Streams that are open."""
        return len(self._batch)

    @property
    def waiting_ms(self) -> int:
        """All sound that waits."""
        with self._condition:
            return sum(slot.waiting_ms for slot in self._slots)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; streams that are open are dropped."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()

    def drain(self) -> None:
        """Give away no more places."""
        self.is_draining = True

    def open_slot(self, deliver: Deliver) -> Slot:
        """A place for a client. `deliver` is called on the scheduler's thread.

        Raises RequestError when all are taken, or the server is going away.
        """
        with self._condition:
            if self.is_draining:
                raise RequestError(
                    "the server is shutting down", code="shutting_down", status=503
                )
            if len(self._slots) >= self.max_sessions:
                raise RequestError(
                    f"all {self.max_sessions} sessions of this server are taken; try "
                    "again later, or start it with a larger --max-sessions",
                    code="at_capacity",
                    status=503,
                )
            slot = Slot(self, deliver)
            self._slots.add(slot)
            return slot

    def submit(self, slot: Slot, command: Command) -> None:
        """`Slot.submit`."""
        with self._condition:
            if slot.is_released:
                return
            slot.n_inbox_samples += _n_samples(command)
            slot.inbox.append((command, self._clock()))
            self._is_woken = True
            self._condition.notify()

    def release(self, slot: Slot) -> None:
        """`Slot.release`."""
        with self._condition:
            if slot.is_released:
                return
            slot.is_released = True
            slot.inbox.clear()
            slot.n_inbox_samples = 0
            self._slots.discard(slot)
            self._is_woken = True
            self._condition.notify()

    def _run(self) -> None:
        # The weights may have been loaded on another thread, and not be read yet.
        mx.eval(self._checkpoint.model.parameters())
        while self._wait():
            self._tick()
        self._by_session.clear()

    def _tick(self) -> None:
        # Nothing of it may be kept while the thread waits: not even a local variable.
        self._drop_released()
        with self._condition:
            slots = list(self._slots)
        for slot in slots:
            self._run_commands(slot)
        if self._batch.n_due:
            self._step()
        for slot in slots:
            self._finish_flush(slot)

    def _wait(self) -> bool:
        """Until there is something to do; False if that is to end."""
        with self._condition:
            while not (self._is_stopping or self._is_woken or self._batch.n_due):
                self._condition.wait()
            self._is_woken = False
            return not self._is_stopping

    def _wake(self) -> None:
        with self._condition:
            self._is_woken = True
            self._condition.notify()

    def _drop_released(self) -> None:
        for session, slot in list(self._by_session.items()):
            if slot.is_released:
                self._close_stream(session)

    def _close_stream(self, session: Session) -> None:
        self._batch.remove(session)
        slot = self._by_session.pop(session)
        slot.stream = None
        slot.n_stream_samples = 0
        if len(self._batch) == 0:
            mx.clear_cache()  # nobody needs it now, and a Mac has other uses for it

    def _run_commands(self, slot: Slot) -> None:
        """What a client sent, as far as it can be done now."""
        while slot.stream is None or not slot.stream.is_holding:
            with self._condition:
                if not slot.inbox:
                    return
                command, came_at = slot.inbox.popleft()
                slot.n_inbox_samples -= _n_samples(command)
                if isinstance(command, PushAudio):
                    slot.n_stream_samples += len(command.samples)
            try:
                self._run_command(slot, command, came_at)
            except VoxmlxError as error:
                self._fail(slot, RequestError(str(error), code="invalid_value"))
                return

    def _run_command(self, slot: Slot, command: Command, came_at: float) -> None:
        if isinstance(command, Open):
            self._open(slot, command)
            return
        stream = slot.stream
        assert stream is not None, f"{command} without Open"
        timeline = stream.session.timeline
        match command:
            case PushAudio(samples):
                timeline.push(samples)
            case Flush():
                before_ms = timeline.duration_ms
                timeline.flush()
                stream.flushing = Flushed(timeline.duration_ms - before_ms)
            case Finish():
                timeline.end()
                stream.is_ending = True
        stream.arrivals.append((timeline.duration_ms, came_at))

    def _open(self, slot: Slot, command: Open) -> None:
        options = command.options
        session = Session(
            self._checkpoint,
            delay_ms=options.delay_ms,
            pause_ms=options.pause_ms,
            hotwords=options.hotwords,
            guards=self._guards,
            kv_bits=self._kv_bits,
        )
        slot.stream = _Stream(session)
        self._by_session[session] = slot
        self._batch.add(session)

    def _step(self) -> None:
        n_due = self._batch.n_due
        started = self._clock()
        try:
            said = self._batch.step()
        except Exception:  # whatever MLX raises: the server outlives it
            _log.exception("a step failed; its sessions are ended")
            error = RequestError("decoding failed", code="server_error", status=500)
            for slot in list(self._by_session.values()):
                self._fail(slot, error)
            return
        ended = self._clock()
        n_tokens = 0
        for session, events in said:
            slot = self._by_session[session]
            n_tokens += sum(isinstance(event, TokenDecoded) for event in events)
            for event in events:
                if isinstance(event, Recovered):
                    _log.warning("the %s's numbers were not finite", event.cause)
                    self._metrics.recovered(event.cause)
            notices: list[Notice] = [*events, *self._lag(slot, events, ended)]
            if isinstance(events[-1], Finished):
                self._close_stream(session)
                self._wake()  # its client may have more to say
            slot.deliver(notices)
        self._metrics.stepped(ended - started, n_due, n_tokens)

    def _lag(self, slot: Slot, events: Sequence[Event], now: float) -> list[Notice]:
        """How long ago the sound came that the last of these ids waited for."""
        last = next((e for e in reversed(events) if isinstance(e, TokenDecoded)), None)
        stream = slot.stream
        if last is None or stream is None:
            return []
        needed_ms = last.time_ms + stream.session.delay_ms
        while len(stream.arrivals) > 1 and stream.arrivals[0][0] < needed_ms:
            stream.arrivals.popleft()
        if not stream.arrivals or stream.arrivals[0][0] < needed_ms:
            return []  # it spoke about silence of ours
        lag_s = now - stream.arrivals[0][1]
        self._metrics.lagged(lag_s)
        if now - slot.lag_sent_at < _LAG_INTERVAL_S:
            return []
        slot.lag_sent_at = now
        return [Lagging(round(lag_s * 1000), slot.waiting_ms)]

    def _finish_flush(self, slot: Slot) -> None:
        """Count what still waits, and say that a flush is done."""
        stream = slot.stream
        if stream is None:
            return
        slot.n_stream_samples = stream.session.timeline.n_waiting
        if stream.flushing is not None and not self._batch.is_due(stream.session):
            flushed, stream.flushing = stream.flushing, None
            slot.deliver([flushed])
            self._wake()  # what came after it may go on

    def _fail(self, slot: Slot, error: RequestError) -> None:
        """End a client's stream with the reason; what it sends on is not heard."""
        self._metrics.failed(error.code)
        if slot.stream is not None:
            self._close_stream(slot.stream.session)
        with self._condition:
            slot.inbox.clear()
            slot.n_inbox_samples = 0
        slot.deliver([Failed(error)])
        self.release(slot)


def _n_samples(command: Command) -> int:
    """What a command gives the decoder to do."""
    match command:
        case PushAudio(samples):
            return len(samples)
        case Flush() | Finish():
            return _SILENCE_SAMPLES
        case Open():
            return 0
