"""The loop of a live stream: sound from a source, events to whoever wants them."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from voxmlx.audio.block_queue import Block
from voxmlx.audio.file_source import FileSource
from voxmlx.config import (
    AUDIO_TOKEN_MS,
    DEFAULT_DELAY_MS,
    RIGHT_PAD_TOKENS,
    SAMPLES_PER_AUDIO_TOKEN,
)
from voxmlx.events import Event, Finished, TokenDecoded
from voxmlx.live.recorded import to_pcm16
from voxmlx.live.stream_metrics import StreamMetrics
from voxmlx.live.waiting_sound import WaitingSound

__all__ = ["Captions", "Listener", "LiveStream", "SoundSource", "flushing_silence"]

# How long to wait for sound before the display is drawn again.
_WAIT_S = 0.1


class SoundSource(Protocol):
    """A source of sound: a microphone, a file or a pipe."""

    @property
    def name(self) -> str: ...
    @property
    def is_ended(self) -> bool: ...
    def read(self, timeout_s: float) -> list[Block]: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...


class LiveStream(Protocol):
    """The part of a Session that the loop uses; a remote stream has it too.

    That may want no samples, because it has something to say without any, and finish
    bit by bit.
    """

    @property
    def delay_ms(self) -> int | None: ...
    @property
    def samples_wanted(self) -> int: ...
    def push(self, samples: np.ndarray, /) -> list[Event]: ...
    def finish(self) -> list[Event]: ...


class Listener(Protocol):
    """A receiver of the sound and the events, in stream order."""

    def on_audio(self, samples: np.ndarray, /) -> None: ...
    def on_events(self, events: Sequence[Event], /) -> None: ...
    def on_tick(self, metrics: StreamMetrics, /) -> None: ...


def flushing_silence(delay_ms: int, pause_ms: int = 0) -> np.ndarray:
    """Return the silence [n] that brings out all words at a delay, as a flush does.

    It is the delay, 0.8 s, what completes an audio token, and one beyond it. A further
    `pause_ms` ends the utterance too.
    """
    n_tokens = (delay_ms + pause_ms) // AUDIO_TOKEN_MS + RIGHT_PAD_TOKENS + 2
    return np.zeros(n_tokens * SAMPLES_PER_AUDIO_TOKEN, np.float32)


class Captions:
    """Moves sound from a source through a stream until the source ends.

    Sound that waits is decoded in larger steps; none is ever dropped here.
    """

    def __init__(
        self,
        source: SoundSource,
        stream: LiveStream,
        listeners: Sequence[Listener],
        metrics: StreamMetrics,
        *,
        is_recorded: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Move sound as it is, or if it `is_recorded`, as a recording holds it."""
        self._is_recorded = is_recorded
        self._source = source
        self._stream = stream
        self._listeners = listeners
        self._metrics = metrics
        self._clock = clock
        self._waiting = WaitingSound()
        self._n_flushed = self._n_flush_silence = 0
        self.is_stopping = False
        """Whether the stream is to end: nothing asked of it from now on is done."""

    def stop(self) -> None:
        """End soon, without losing a word that was heard. For signal handlers."""
        # The source has locks that the interrupted thread may hold: the loop stops it.
        self.is_stopping = True

    def flush(self, pause_ms: int = 0) -> Callable[[], bool]:
        """Hear silence after what has come, so that the words spoken so far come out.

        Return what says whether they are out. Stream time counts the silence. So much
        more of it as ends an utterance, `pause_ms`, ends it. Without new sound since the
        last flush, the silence of that one is enough.
        """
        if not self._source.is_ended:
            self._accept(self._source.read(0))
        delay_ms = self._stream.delay_ms or DEFAULT_DELAY_MS
        silence = flushing_silence(delay_ms, pause_ms)
        is_new = self._waiting.n_heard > self._n_flushed
        if is_new or len(silence) > self._n_flush_silence:
            self._accept([Block(silence, self._clock())])
            self._n_flushed = self._waiting.n_heard
            self._n_flush_silence = len(silence)
        is_taken = self._waiting.mark()
        # A stream may have words left to say that need no more sound.
        return lambda: is_taken() and self._stream.samples_wanted > 0

    def replay(self, replayed: Iterable[Sequence[Event]]) -> None:
        """Show events of sound that was heard before, all of them.

        A stop that comes meanwhile ends the stream in `run`: what was heard before is
        in the files then, as after any stop.
        """
        for events in replayed:
            self._show(events)
            self._tick()

    def run(self) -> None:
        """Return when the source has ended and every event has been shown."""
        is_stopped = False
        while not self._source.is_ended:
            if self.is_stopping and not is_stopped:
                is_stopped = True
                self._source.stop()
            self._take(0 if self._is_step_due() else _WAIT_S)
            if self._is_step_due():
                self._step()
            self._tick()
        if isinstance(self._source, FileSource):
            self._show(self._source.take_warnings())
        while self._waiting.n_samples or not self._stream.samples_wanted:
            self._step()
            self._tick()
        self.is_stopping = True
        is_finished = False
        while not is_finished:
            events = self._stream.finish()
            is_finished = any(isinstance(event, Finished) for event in events)
            self._show(events)
            self._tick()

    def _take(self, timeout_s: float) -> None:
        if self._waiting.is_full:
            time.sleep(timeout_s)
            return  # a file would be read to its end, and be held in memory
        if isinstance(self._source, FileSource):
            self._show(self._source.take_warnings())
        self._accept(self._source.read(timeout_s))

    def _accept(self, blocks: Sequence[Block]) -> None:
        """Have the listeners hear sound, and let it wait for the stream."""
        for block in blocks:
            samples = block.samples
            if self._is_recorded:
                samples = to_pcm16(samples).astype(np.float32) / 32768
            if len(samples):
                self._waiting.push(Block(samples, block.time))
                self._metrics.pushed(samples)
                for listener in self._listeners:
                    listener.on_audio(samples)

    def _is_step_due(self) -> bool:
        return self._waiting.n_samples >= self._stream.samples_wanted

    def _step(self) -> None:
        """Push what waits, whole blocks up to the largest step; measure its tokens."""
        samples, completed_at = self._waiting.take(self._stream.samples_wanted)
        started = self._clock()
        events = self._stream.push(samples)
        ended = self._clock()
        n_tokens = sum(isinstance(event, TokenDecoded) for event in events)
        # Before the prompt is complete, tokens of sound give no ids.
        lags = [ended - at for at in completed_at[-n_tokens:]] if n_tokens else []
        self._metrics.stepped(len(completed_at), ended - started, lags)
        self._show(events)

    def _show(self, events: Sequence[Event]) -> None:
        for listener in self._listeners:
            listener.on_events(events)

    def _tick(self) -> None:
        for listener in self._listeners:
            listener.on_tick(self._metrics)
