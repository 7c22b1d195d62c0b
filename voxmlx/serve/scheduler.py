"""One thread that owns MLX and steps the streams of all clients.

A client has a slot, of one kind for as long as it is held:

  live   its sound comes as it is spoken, and its text should lag no more than alone
  file   its sound is there already; it gets the time that live streams leave

A slot has at most one stream at a time. Its states, and what changes them (commands of
the client; in brackets, what the thread finds):

             Open               [prefix, hot words ready]       Flush
  NONE ──────────────▶ OPENING ──────────────────────────▶ OPEN ◀─────▶ FLUSHING
   ▲                                                        │  [Flushed]
   │ [Finished, or Failed from any state]          Finish   │
   └────────────────────────── ENDING ◀─────────────────────┘

In NONE and OPEN the thread obeys commands at once. In the other states they wait in the
slot's inbox, in order. `release` leaves from any state; a stream that is open is lost.

A tick obeys commands, and then does exactly one of these, the first that is due:

  1. one step of all live streams with a whole audio token, in one pass
  2. one pass of a prefix: the silence before streams of a delay that is new here
  3. one pass for files: as many of them as end within `_FILE_PASS_S`

So live sound waits for one pass at most: no other is in flight when its step begins.
Mostly it waits for none: speech comes at a steady pace, so the thread knows when the
next audio token of a live stream should be whole. A pass for files that would not end
before it is not begun; it may be `_LATE_S` late. Files that got nothing for
`_FILE_PATIENCE_S` come first once. While no live client is there, passes for files are
larger, and queued without waiting.

Example: a step takes 10 ms, a pass for files 12 ms, and one live client speaks. Its
audio token is whole at 80 ms. Passes for files fill the time until 70 ms. The next one
would end at 82 ms, so the thread waits. At 80 ms it steps the token, until 90 ms. The
next token is expected at 160 ms; until 150 ms, five more passes serve files.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import mlx.core as mx
import numpy as np

from voxmlx.batch import MAX_TOKENS_PER_STEP, Batch
from voxmlx.checkpoint import Checkpoint
from voxmlx.config import DEFAULT_DELAY_MS, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.decoding.hotwords import HotwordTrie
from voxmlx.decoding.loop import MAX_AUDIO_TOKENS_PER_STEP
from voxmlx.decoding.speculation import Speculation
from voxmlx.errors import RequestError, ServerError, VoxmlxError
from voxmlx.events import Event, Finished, Recovered, TokenDecoded
from voxmlx.serve.file_share import FileShare
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
from voxmlx.serve.slot import Deliver, Kind, Opening, Slot, SlotStream
from voxmlx.session import Session

__all__ = ["MetricsSink", "Scheduler"]

_log = logging.getLogger("voxmlx.serve")

# Decoded to bring out the last words of a stream, about: a delay and 0.8 s.
_SILENCE_SAMPLES = 20 * SAMPLES_PER_AUDIO_TOKEN

# How long a pass for files should take while live clients are there: a quarter of an
# audio token.
_FILE_PASS_S = 0.02
_FILE_PATIENCE_S = 2.0

# How long after its time live sound is still waited for.
_LATE_S = 0.03

# How often a client is told how far behind it is.
_LAG_INTERVAL_S = 1.0


class MetricsSink(Protocol):
    """A receiver of the scheduler's figures. Called on the scheduler's thread."""

    def stepped(
        self, kind: Kind, seconds: float, n_streams: int, n_tokens: int, /
    ) -> None: ...
    def lagged(self, seconds: float, /) -> None: ...
    def failed(self, code: str, /) -> None: ...
    def recovered(self, cause: str, /) -> None: ...


class _NullMetrics:
    def stepped(
        self, kind: Kind, seconds: float, n_streams: int, n_tokens: int, /
    ) -> None: ...
    def lagged(self, seconds: float, /) -> None: ...
    def failed(self, code: str, /) -> None: ...
    def recovered(self, cause: str, /) -> None: ...


class Scheduler:
    """Slots for `max_sessions` clients, and the thread that decodes for them.

    A client that is slow, silent or gone delays nobody. Its text is what a session
    alone says, whoever else is there.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        max_sessions: int,
        max_files: int | None = None,
        delay_ms: int = DEFAULT_DELAY_MS,
        guards: Sequence[str] = (),
        kv_bits: int | None = None,
        metrics: MetricsSink | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`delay_ms` is what most streams will have: its prefix is ready at the start.

        At most `max_files` of the slots are given to files, all if that is None.
        """
        self.max_sessions = max_sessions
        self.max_files = max_sessions if max_files is None else max_files
        self.is_draining = False
        self._delay_ms = delay_ms
        self._checkpoint = checkpoint
        self._guards = tuple(guards)
        self._kv_bits = checkpoint.kv_bits if kv_bits is None else kv_bits
        self._metrics = metrics or _NullMetrics()
        self._clock = clock
        self._batches: dict[Kind, Batch] = {
            "live": Batch(checkpoint.model),
            "file": Batch(checkpoint.model),
        }
        self._share = FileShare(_FILE_PASS_S)
        self._files_served_at = 0.0
        # Delay -> what is left to do for its prefix.
        self._prefixes: dict[int, Iterator[None]] = {}
        # Finding the ids of many hot words takes seconds.
        self._hotword_maker = ThreadPoolExecutor(1, "voxmlx-hotwords")
        self._slots: set[Slot] = set()
        self._by_session: dict[Session, Slot] = {}
        self._condition = threading.Condition()
        self._is_woken = False
        self._is_stopping = False
        self._started: Future[None] = Future()
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
        return sum(map(len, self._batches.values()))

    @property
    def waiting_ms(self) -> int:
        """Return the sound of all clients that waits to be decoded, in ms."""
        with self._condition:
            return sum(slot.waiting_ms for slot in self._slots)

    def start(self) -> None:
        """Begin; return when the first client can be served. Raises ServerError."""
        self._thread.start()
        try:
            self._started.result()
        except RuntimeError as error:  # whatever MLX raises, out of memory above all
            raise ServerError(
                f"the model cannot be run here: {str(error).splitlines()[0]}"
            ) from None

    def stop(self) -> None:
        """End the thread; streams that are open are dropped."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._hotword_maker.shutdown(cancel_futures=True)

    def drain(self) -> None:
        """Give away no more places."""
        self.is_draining = True

    def open_slot(self, deliver: Deliver, kind: Kind = "live") -> Slot:
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
            n_files = sum(slot.kind == "file" for slot in self._slots)
            if kind == "file" and n_files >= self.max_files:
                raise RequestError(
                    f"{n_files} files are being transcribed, as many as may be at "
                    "once; try again later, or start the server with a larger "
                    "--max-uploads",
                    code="at_capacity",
                    status=503,
                )
            slot = Slot(self, deliver, kind)
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
        try:
            self._warm_up()
        except Exception as error:  # told to who waits for the start
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        while self._wait():
            self._tick()
        self._by_session.clear()

    def _warm_up(self) -> None:
        """Do once what the first client would wait for."""
        session = Session(
            self._checkpoint, delay_ms=self._delay_ms, kv_bits=self._kv_bits
        )
        session.push(np.zeros(3 * SAMPLES_PER_AUDIO_TOKEN, np.float32))
        mx.clear_cache()

    def _tick(self) -> None:
        # Nothing of it may be kept while the thread waits: not even a local variable.
        self._drop_released()
        with self._condition:
            slots = list(self._slots)
        for slot in slots:
            self._run_commands(slot)
        is_live_due = self._batches["live"].n_due > 0
        if is_live_due and not self._are_files_starving():
            self._step("live", None)
        elif self._prefixes:
            self._step_prefix()
        elif self._batches["file"].n_due and not self._file_pause_s():
            self._step_files(has_live=any(slot.kind == "live" for slot in slots))
        for slot in slots:
            self._finish_flush(slot)

    def _wait(self) -> bool:
        """Until there is something to do; False if that is to end."""
        with self._condition:
            while not (self._is_stopping or self._is_woken or self._is_due):
                # Files may wait for nothing but the time.
                self._condition.wait(self._file_pause_s() or None)
            self._is_woken = False
            return not self._is_stopping

    @property
    def _is_due(self) -> bool:
        if self._prefixes or self._batches["live"].n_due:
            return True
        return self._batches["file"].n_due > 0 and not self._file_pause_s()

    def _file_pause_s(self) -> float:
        """How long files wait, so that no pass of theirs meets the next live step."""
        if not self._batches["file"].n_due or self._are_files_starving():
            return 0.0
        now, pause_s = self._clock(), 0.0
        for slot in self._by_session.values():
            if slot.kind != "live" or slot.stream is None:
                continue
            expected_at = slot.stream.expected_at
            if expected_at is None:
                continue
            if expected_at - self._share.expected_s < now < expected_at + _LATE_S:
                pause_s = max(pause_s, expected_at + _LATE_S - now)
        return pause_s

    def _are_files_starving(self) -> bool:
        if not self._batches["file"].n_due:
            return False
        return self._clock() - self._files_served_at > _FILE_PATIENCE_S

    def _step_prefix(self) -> None:
        delay_ms, passes = next(iter(self._prefixes.items()))
        try:
            next(passes)
        except StopIteration:
            del self._prefixes[delay_ms]
            self._wake()  # streams that wait for it can be opened
        except Exception:  # whatever MLX raises: the server outlives it
            _log.exception("a prefix failed; streams of its delay are not opened")
            del self._prefixes[delay_ms]
            with self._condition:
                slots = list(self._slots)
            for slot in slots:
                if slot.opening is not None:
                    self._fail(slot, _decoding_failed())

    def _step_files(self, *, has_live: bool) -> None:
        due = [one for one, slot in self._by_session.items() if slot.kind == "file"]
        due = [one for one in due if self._batches["file"].is_due(one)]
        if not has_live:
            self._step("file", due, MAX_AUDIO_TOKENS_PER_STEP)
            return
        started = self._clock()
        self._step("file", self._share.choose(due))
        mx.synchronize()  # nothing queued may stand before a live step
        self._share.passed(self._clock() - started)

    def _wake(self) -> None:
        with self._condition:
            self._is_woken = True
            self._condition.notify()

    def _drop_released(self) -> None:
        for session, slot in list(self._by_session.items()):
            if slot.is_released:
                self._close_stream(session)

    def _close_stream(self, session: Session) -> None:
        slot = self._by_session.pop(session)
        self._batches[slot.kind].remove(session)
        slot.stream = None
        slot.n_stream_samples = 0
        if self.n_streams == 0:
            mx.clear_cache()  # nobody needs it now, and a Mac has other uses for it

    def _run_commands(self, slot: Slot) -> None:
        """What a client sent, as far as it can be done now."""
        while slot.stream is None or not slot.stream.is_holding:
            with self._condition:
                if not slot.inbox:
                    return
                command, came_at = slot.inbox[0]
            try:
                if isinstance(command, Open) and not self._can_open(slot, command):
                    return
                with self._condition:
                    if not slot.inbox:  # its client has left meanwhile
                        return
                    slot.inbox.popleft()
                    slot.n_inbox_samples -= _n_samples(command)
                    if isinstance(command, PushAudio):
                        slot.n_stream_samples += len(command.samples)
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
        if slot.kind == "live":
            stream.note_arrival(timeline.duration_ms, came_at)

    def _can_open(self, slot: Slot, command: Open) -> bool:
        """Whether nothing is left to prepare for a stream; else it is begun."""
        delay_ms, hotwords = command.options.delay_ms, command.options.hotwords
        if slot.opening is None:
            model = self._checkpoint.model
            is_prepared = model.is_prepared(delay_ms, kv_bits=self._kv_bits)
            if not is_prepared and delay_ms not in self._prefixes:
                passes = model.prepare(delay_ms, kv_bits=self._kv_bits)
                self._prefixes[delay_ms] = passes
            made = None
            if hotwords:
                tokenizer = self._checkpoint.tokenizer
                made = self._hotword_maker.submit(HotwordTrie, tokenizer, hotwords)
                made.add_done_callback(lambda _: self._wake())
            slot.opening = Opening(made)
        made = slot.opening.hotwords
        return delay_ms not in self._prefixes and (made is None or made.done())

    def _open(self, slot: Slot, command: Open) -> None:
        options = command.options
        assert slot.opening is not None
        made, slot.opening = slot.opening.hotwords, None
        session = Session(
            self._checkpoint,
            delay_ms=options.delay_ms,
            confidence=options.confidence,
            pause_ms=options.pause_ms,
            hotwords=made.result() if made is not None else (),
            guards=self._guards,
            speculate=slot.kind == "file" and Speculation(time.perf_counter),
            kv_bits=self._kv_bits,
        )
        slot.stream = SlotStream(session)
        self._by_session[session] = slot
        self._batches[slot.kind].add(session)

    def _step(
        self,
        kind: Kind,
        sessions: Sequence[Session] | None,
        max_tokens: int = MAX_TOKENS_PER_STEP,
    ) -> None:
        batch = self._batches[kind]
        started = self._clock()
        if kind == "file":
            self._files_served_at = started
        n_due = batch.n_due if sessions is None else len(sessions)
        try:
            said = batch.step(sessions, max_tokens=max_tokens)
        except Exception:  # whatever MLX raises: the server outlives it
            _log.exception("a step failed; its sessions are ended")
            for slot in list(self._by_session.values()):
                if slot.kind == kind:
                    self._fail(slot, _decoding_failed())
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
        self._metrics.stepped(kind, ended - started, n_due, n_tokens)

    def _lag(self, slot: Slot, events: Sequence[Event], now: float) -> list[Notice]:
        """How long ago the sound came that the last of these ids waited for."""
        last = next((e for e in reversed(events) if isinstance(e, TokenDecoded)), None)
        stream = slot.stream
        if last is None or stream is None or slot.kind == "file":
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
        if stream.flushing is not None and not self._batches[slot.kind].is_due(
            stream.session
        ):
            flushed, stream.flushing = stream.flushing, None
            slot.deliver([flushed])
            self._wake()  # what came after it may go on

    def _fail(self, slot: Slot, error: RequestError) -> None:
        """End a client's stream with the reason; what it sends on is not heard."""
        self._metrics.failed(error.code)
        if slot.stream is not None:
            self._close_stream(slot.stream.session)
        slot.opening = None
        with self._condition:
            slot.inbox.clear()
            slot.n_inbox_samples = 0
        slot.deliver([Failed(error)])
        self.release(slot)


def _decoding_failed() -> RequestError:
    return RequestError("decoding failed", code="server_error", status=500)


def _n_samples(command: Command) -> int:
    """What a command gives the decoder to do."""
    match command:
        case PushAudio(samples):
            return len(samples)
        case Flush() | Finish():
            return _SILENCE_SAMPLES
        case Open():
            return 0
