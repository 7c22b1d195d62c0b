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
before it is not begun; `file_share.py` says how late the token may be. Files that got
nothing for two seconds come first once. While no live client is there, passes for files
are larger, and queued without waiting.

Who else has a part: `slot_table.py` keeps slots and commands, for any thread;
`openings.py` prepares streams; `file_share.py` says when files are served, and how many.

Example: a step takes 10 ms, a pass for files 12 ms, and one live client speaks. Its
audio token is whole at 80 ms. Passes for files fill the time until 70 ms. The next one
would end at 82 ms, so the thread waits. At 80 ms it steps the token, until 90 ms. The
next token is expected at 160 ms; until 150 ms, five more passes serve files.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import mlx.core as mx
import numpy as np

from voxmlx.batch import MAX_TOKENS_PER_STEP, Batch
from voxmlx.checkpoint import Checkpoint
from voxmlx.config import DEFAULT_DELAY_MS, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.decoding.loop import MAX_AUDIO_TOKENS_PER_STEP
from voxmlx.errors import RequestError, ServerError, VoxmlxError
from voxmlx.events import Event, Finished, Recovered, TokenDecoded
from voxmlx.memory import give_back_memory
from voxmlx.serve.file_share import FileShare
from voxmlx.serve.metrics_sink import MetricsSink, NullMetrics
from voxmlx.serve.openings import Openings
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
from voxmlx.serve.slot import Deliver, Kind, Slot, SlotStream
from voxmlx.serve.slot_table import SlotTable
from voxmlx.session import Session
from voxmlx.session_options import LIVE_SILENCE_BLOCK

__all__ = ["Scheduler"]

_log = logging.getLogger("voxmlx.serve")

# How long nobody must have been there before freed memory goes back to the system.
_IDLE_S = 1.0

# How long a pass for files should take while live clients are there: a quarter of an
# audio token.
_FILE_PASS_S = 0.02

# How often a client is told how far behind it is.
_LAG_INTERVAL_S = 1.0


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
        silence_block: int = LIVE_SILENCE_BLOCK,
        metrics: MetricsSink | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`delay_ms` is what most streams will have: its prefix is ready at the start.

        At most `max_files` of the slots are given to files, all if that is None.
        `silence_block` is that of live streams; see Session.
        """
        self.max_sessions = max_sessions
        self.max_files = max_sessions if max_files is None else max_files
        self._delay_ms = delay_ms
        self._checkpoint = checkpoint
        self._kv_bits = checkpoint.kv_bits if kv_bits is None else kv_bits
        self._metrics = metrics or NullMetrics()
        self._clock = clock
        self._slots = SlotTable(max_sessions, self.max_files, clock)
        self._openings = Openings(
            checkpoint,
            self._kv_bits,
            tuple(guards),
            self._slots.wake,
            silence_block=silence_block,
        )
        self._batches: dict[Kind, Batch] = {
            "live": Batch(checkpoint.model),
            "file": Batch(checkpoint.model),
        }
        self._share = FileShare(_FILE_PASS_S)
        self._by_session: dict[Session, Slot] = {}
        # When freed memory goes back to the system, if nobody comes before.
        self._give_back_at = math.inf
        self._started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, name="voxmlx-decoder", daemon=True
        )

    @property
    def is_draining(self) -> bool:
        """Return whether no more places are given away."""
        return self._slots.is_draining

    @property
    def n_slots(self) -> int:
        """Clients that have a place."""
        return len(self._slots)

    @property
    def slots(self) -> list[Slot]:
        """Return the places of all clients."""
        return list(self._slots)

    @property
    def n_streams(self) -> int:
        """Streams that are open."""
        return sum(map(len, self._batches.values()))

    @property
    def waiting_ms(self) -> int:
        """Return the sound of all clients that waits to be decoded, in ms."""
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
        self._slots.stop()
        if self._thread.is_alive():
            self._thread.join()
        self._openings.stop()

    def drain(self) -> None:
        """Give away no more places."""
        self._slots.is_draining = True

    def open_slot(self, deliver: Deliver, kind: Kind = "live") -> Slot:
        """A place for a client. `deliver` is called on the scheduler's thread.

        Raises RequestError when all are taken, or the server is going away.
        """
        return self._slots.open(deliver, kind)

    def _run(self) -> None:
        try:
            self._warm_up()
        except Exception as error:  # told to who waits for the start
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        while self._slots.wait(lambda: self.is_due, self._pause_s):
            self.tick()
        self._by_session.clear()

    def _warm_up(self) -> None:
        """Do once what the first client would wait for."""
        session = Session(
            self._checkpoint, delay_ms=self._delay_ms, kv_bits=self._kv_bits
        )
        session.push(np.zeros(3 * SAMPLES_PER_AUDIO_TOKEN, np.float32))
        mx.clear_cache()

    def tick(self) -> None:
        """Do what commands say, then one step, pass or prefix that is due.

        The scheduler's thread does so; whoever has not started it may do so instead.
        """
        # Nothing of it may be kept while the thread waits: not even a local variable.
        self._drop_released()
        slots = list(self._slots)
        for slot in slots:
            self._run_commands(slot)
        is_file_due = self._batches["file"].n_due > 0
        is_starving = is_file_due and self._share.is_starving(self._clock())
        if self._batches["live"].n_due and not is_starving:
            self._step("live", None)
        elif self._openings.is_due:
            self._step_prefix()
        elif is_file_due and not self._file_pause_s():
            self._step_files(has_live=any(slot.kind == "live" for slot in slots))
        for slot in slots:
            self._finish_flush(slot)
        if self._is_idle_long:
            self._give_back_at = math.inf
            give_back_memory()

    @property
    def is_due(self) -> bool:
        """Return whether the next tick has a step, a pass or a prefix to do."""
        if self._openings.is_due or self._batches["live"].n_due or self._is_idle_long:
            return True
        return self._batches["file"].n_due > 0 and not self._file_pause_s()

    @property
    def _is_idle_long(self) -> bool:
        """Whether nobody has been there so long that memory should be given back."""
        return self.n_streams == 0 and self._clock() >= self._give_back_at

    def _pause_s(self) -> float | None:
        """How long until the time alone makes something due; None if it does not."""
        if self._batches["file"].n_due:  # they may wait for nothing but the time
            return self._file_pause_s()
        if self.n_streams == 0 and self._give_back_at < math.inf:
            # The next client may come at once.
            return max(0.0, self._give_back_at - self._clock())
        return None

    def _file_pause_s(self) -> float:
        """How long files wait, so that no pass of theirs meets the next live step."""
        if not self._batches["file"].n_due:
            return 0.0
        expected = (
            slot.stream.expected_at
            for slot in self._by_session.values()
            if slot.kind == "live" and slot.stream is not None
        )
        return self._share.pause_s(self._clock(), expected)

    def _step_prefix(self) -> None:
        try:
            self._openings.step()
        except Exception:  # whatever MLX raises: the server outlives it
            _log.exception("a prefix failed; streams of its delay are not opened")
            for slot in self._slots:
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
            self._give_back_at = self._clock() + _IDLE_S

    def _run_commands(self, slot: Slot) -> None:
        """What a client sent, as far as it can be done now."""
        while slot.stream is None or not slot.stream.is_holding:
            if (first := self._slots.first_command(slot)) is None:
                return
            command, came_at = first
            try:
                if isinstance(command, Open) and not self._openings.is_ready(
                    slot, command.options
                ):
                    return
                if not self._slots.take_command(slot):  # its client has left meanwhile
                    return
                self._run_command(slot, command, came_at)
            except VoxmlxError as error:
                self._fail(slot, RequestError(str(error), code="invalid_value"))
                return
            except Exception:  # a mistake of ours: the server outlives it
                _log.exception("a command failed; its stream is ended")
                self._fail(slot, _decoding_failed())
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
            case Finish(is_cut=True):
                self._close_stream(stream.session)
                slot.deliver([Finished(timeline.duration_ms, 0)])
                return
            case Finish():
                timeline.end()
                stream.is_ending = True
        if slot.kind == "live":
            n_samples = len(command.samples) if isinstance(command, PushAudio) else 0
            stream.note_arrival(timeline.duration_ms, came_at, n_samples)

    def _open(self, slot: Slot, command: Open) -> None:
        session = self._openings.session(slot, command.options)
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
            self._share.begin(started)
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
                self._slots.wake()  # its client may have more to say
            slot.deliver(notices)
        self._metrics.stepped(kind, ended - started, n_due, n_tokens)

    def _lag(self, slot: Slot, events: Sequence[Event], now: float) -> list[Notice]:
        last = next((e for e in reversed(events) if isinstance(e, TokenDecoded)), None)
        stream = slot.stream
        if last is None or stream is None or slot.kind == "file":
            return []
        if (lag_s := stream.lag_s(last.time_ms, now)) is None:
            return []
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
            self._slots.wake()  # what came after it may go on

    def _fail(self, slot: Slot, error: RequestError) -> None:
        """End a client's stream with the reason; what it sends on is not heard."""
        self._metrics.failed(error.code)
        if slot.stream is not None:
            self._close_stream(slot.stream.session)
        slot.opening = None
        self._slots.clear(slot)
        slot.deliver([Failed(error)])
        slot.release()


def _decoding_failed() -> RequestError:
    return RequestError("decoding failed", code="server_error", status=500)
