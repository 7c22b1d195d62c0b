"""The loop of several live streams: a session each, stepped together."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from voxmlx.audio.block_queue import Block
from voxmlx.batch import Batch
from voxmlx.decoding.loop import MAX_AUDIO_TOKENS_PER_STEP
from voxmlx.events import ChannelEvent, Event, SoundWarning, TokenDecoded
from voxmlx.live.captions import Listener, SoundSource, flushing_silence
from voxmlx.live.recorded import to_pcm16
from voxmlx.live.stream_metrics import StreamMetrics
from voxmlx.live.waiting_sound import WaitingSound
from voxmlx.session import Session
from voxmlx.text.echo_filter import EchoFilter
from voxmlx.text.split_writers import SplitEvent

__all__ = ["LiveChannel", "SeveralCaptions", "SplitListener", "WorstChannel"]

# How long to wait for sound of one source before the others are looked at again.
_WAIT_S = 0.02


class SplitListener(Protocol):
    """A receiver of the sound and the events of several channels, each from 1."""

    def on_audio(self, channel: int, samples: np.ndarray, /) -> None: ...
    def on_events(self, events: Sequence[SplitEvent], /) -> None: ...
    def on_tick(self, metrics: Sequence[StreamMetrics], /) -> None: ...


@dataclass(slots=True, eq=False)
class LiveChannel:
    """A source of sound and the session that decodes it."""

    source: SoundSource
    session: Session
    metrics: StreamMetrics = field(default_factory=StreamMetrics)
    waiting: WaitingSound = field(default_factory=WaitingSound)

    @property
    def is_due(self) -> bool:
        """Return whether what waits completes an audio token."""
        return self.waiting.n_samples >= self.session.samples_wanted


class SeveralCaptions:
    """Moves sound of several sources through a session each, until all have ended.

    All sessions with a whole audio token are stepped in one pass. Sound that waits is
    decoded in larger steps; none is ever dropped here. No source waits for another.
    """

    def __init__(
        self,
        channels: Sequence[LiveChannel],
        batch: Batch,
        echo: EchoFilter,
        listeners: Sequence[SplitListener],
        *,
        is_recorded: bool = False,
        take_warnings: Callable[[], Sequence[SoundWarning]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Move sound as it is, or if it `is_recorded`, as a recording holds it."""
        self._channels = channels
        self._batch = batch
        self._echo = echo
        self._listeners = listeners
        self._is_recorded = is_recorded
        self._take_warnings = take_warnings
        self._clock = clock
        self._n_flushed = [0] * len(channels)
        self._n_flush_silence = 0
        self.is_stopping = False
        """Whether the streams are to end: nothing asked of them from now on is done."""
        self._numbers = {one.session: n for n, one in enumerate(channels, 1)}
        for channel in channels:
            batch.add(channel.session)

    def stop(self) -> None:
        """End soon, without losing a word that was heard. For signal handlers."""
        # The sources have locks that the interrupted thread may hold.
        self.is_stopping = True

    def flush(self, pause_ms: int = 0) -> Callable[[], bool]:
        """Have all streams hear silence after what has come, as `Captions.flush` does."""
        for number, channel in enumerate(self._channels, 1):
            for block in [] if channel.source.is_ended else channel.source.read(0):
                self._hear(number, channel, block)
        silence = flushing_silence(self._channels[0].session.delay_ms, pause_ms)
        # All have one stream time: all hear the silence, or none.
        is_new = self._n_heard() != self._n_flushed
        if is_new or len(silence) > self._n_flush_silence:
            for number, channel in enumerate(self._channels, 1):
                self._hear(number, channel, Block(silence, self._clock()))
            self._n_flushed = self._n_heard()
            self._n_flush_silence = len(silence)
        marks = [channel.waiting.mark() for channel in self._channels]
        return lambda: all(is_out() for is_out in marks)

    def _n_heard(self) -> list[int]:
        return [channel.waiting.n_heard for channel in self._channels]

    def run(self) -> None:
        """Return when all sources have ended and every event has been shown."""
        is_stopped = False
        while not all(channel.source.is_ended for channel in self._channels):
            if self.is_stopping and not is_stopped:
                is_stopped = True
                for channel in self._channels:
                    channel.source.stop()
            self._take()
            self._step(is_last=False)
            self._tick()
        while any(channel.waiting.n_samples for channel in self._channels):
            self._step(is_last=True)
            self._tick()
        self.is_stopping = True
        for channel in self._channels:
            channel.session.timeline.end()
        self._show(self._stepped())
        self._tick()

    def _take(self) -> None:
        """Read what has come; wait for one source if there is nothing to do."""
        timeout_s = 0.0 if any(one.is_due for one in self._channels) else _WAIT_S
        for number, channel in enumerate(self._channels, 1):
            if channel.source.is_ended or channel.waiting.is_full:
                continue
            for block in channel.source.read(timeout_s):
                self._hear(number, channel, block)
            timeout_s = 0.0
        self._show(self._take_warnings())

    def _hear(self, number: int, channel: LiveChannel, block: Block) -> None:
        samples = block.samples
        if not len(samples):
            return
        if self._is_recorded:
            samples = to_pcm16(samples).astype(np.float32) / 32768
        channel.waiting.push(Block(samples, block.time))
        channel.metrics.pushed(samples)
        for listener in self._listeners:
            listener.on_audio(number, samples)

    def _step(self, *, is_last: bool) -> None:
        """Push what completes audio tokens, or all if it `is_last`; step together."""
        completed: list[list[float]] = []
        for number, channel in enumerate(self._channels, 1):
            completed_at: list[float] = []
            if channel.is_due or (is_last and channel.waiting.n_samples):
                wanted = channel.session.samples_wanted
                samples, completed_at = channel.waiting.take(wanted)
                channel.session.timeline.push(samples)
                self._echo.push_sound(number, samples)
            completed.append(completed_at)
        if not any(completed):
            return
        started = self._clock()
        events = self._stepped()
        ended = self._clock()
        n_tokens = [0] * len(self._channels)
        for one in events:
            n_tokens[one.channel - 1] += isinstance(one.event, TokenDecoded)
        for channel, n, at in zip(self._channels, n_tokens, completed, strict=True):
            # Before the prompt is complete, tokens of sound give no ids.
            lags = [ended - time_s for time_s in at[-n:]] if n else []
            channel.metrics.stepped(len(at), ended - started, lags)
        self._show(events)

    def _stepped(self) -> list[ChannelEvent]:
        """Return the events of all work that is due, in the order it was done."""
        events: list[ChannelEvent] = []
        while self._batch.n_due:
            for session, own in self._batch.step(max_tokens=MAX_AUDIO_TOKENS_PER_STEP):
                number = self._numbers[session]
                events += [ChannelEvent(number, event) for event in own]
        return events

    def _show(self, events: Sequence[SplitEvent]) -> None:
        certain: list[SplitEvent] = []
        for event in events:
            if isinstance(event, SoundWarning):
                certain.append(event)
            else:
                certain += self._echo.push(event)
        if certain:
            for listener in self._listeners:
                listener.on_events(certain)

    def _tick(self) -> None:
        metrics = [channel.metrics for channel in self._channels]
        for listener in self._listeners:
            listener.on_tick(metrics)


class WorstChannel:
    """Gives a listener of one stream the events of all, and the figures of the slowest."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def on_audio(self, channel: int, samples: np.ndarray, /) -> None:
        del channel, samples

    def on_events(self, events: Sequence[SplitEvent], /) -> None:
        own: list[Event] = []
        for event in events:
            own.append(event.event if isinstance(event, ChannelEvent) else event)
        self._listener.on_events(own)

    def on_tick(self, metrics: Sequence[StreamMetrics], /) -> None:
        self._listener.on_tick(max(metrics, key=lambda one: one.lag_s))
