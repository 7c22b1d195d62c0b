"""The loop loses no sound, whatever the pace, and reports every token's lag."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.held import held_bytes
from voxmlx.audio.block_queue import Block
from voxmlx.events import Event, Finished, Recovered, TextDelta, TokenDecoded
from voxmlx.live.captions import Captions
from voxmlx.live.lag_warning import LagWarning, RecoveryWarning
from voxmlx.live.stream_metrics import StreamMetrics

TOKEN = 1280


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Paced:
    """Blocks that come when the clock says; `read` moves the clock when it waits."""

    name = "paced"

    def __init__(self, clock: Clock, blocks: Sequence[np.ndarray]) -> None:
        self._clock = clock
        self.is_ended = False
        self.due: list[Block] = []
        n_samples = 0
        for samples in blocks:
            n_samples += len(samples)
            self.due.append(Block(samples, n_samples / 16_000))

    def read(self, timeout_s: float) -> list[Block]:
        if not self.due:
            self.is_ended = True
            return []
        if self.due[0].time > self._clock.now:
            self._clock.now = min(self._clock.now + timeout_s, self.due[0].time)
        ready = [block for block in self.due if block.time <= self._clock.now]
        del self.due[: len(ready)]
        return ready

    def stop(self) -> None:
        self.due.clear()

    def close(self) -> None: ...


class Counting:
    """A stream whose ids are sums of the samples of each audio token."""

    delay_ms: int | None = None

    def __init__(self, clock: Clock, cost_s: float = 0.0, until_s: float = 1e9) -> None:
        self._clock = clock
        self._cost_s = cost_s
        self._until_s = until_s
        self._heard = np.zeros(0, np.float32)
        self._n_tokens = 0
        self.pushed: list[int] = []

    @property
    def samples_wanted(self) -> int:
        return TOKEN - len(self._heard)

    def push(self, samples: np.ndarray, /) -> list[Event]:
        self.pushed.append(len(samples))
        self._heard = np.concatenate([self._heard, samples])
        events: list[Event] = []
        while len(self._heard) >= TOKEN:
            token_id = int(self._heard[:TOKEN].sum())
            self._heard = self._heard[TOKEN:]
            time_ms = 80 * (self._n_tokens + 1)
            events += [
                TokenDecoded(token_id, self._n_tokens, time_ms),
                TextDelta(f" {token_id}", time_ms),
            ]
            self._n_tokens += 1
            if self._clock.now < self._until_s:
                self._clock.now += self._cost_s
        return events

    def finish(self) -> list[Event]:
        return [TextDelta(f" and {len(self._heard)}", 0), Finished(0, self._n_tokens)]


class Notes:
    """A listener that keeps everything."""

    def __init__(self) -> None:
        self.n_heard = 0
        self.events: list[Event] = []
        self.lags: list[float] = []

    def on_audio(self, samples: np.ndarray, /) -> None:
        self.n_heard += len(samples)

    def on_events(self, events: Sequence[Event], /) -> None:
        self.events += events

    def on_tick(self, metrics: StreamMetrics, /) -> None:
        self.lags.append(metrics.lag_s)

    @property
    def text(self) -> str:
        return "".join(e.text for e in self.events if isinstance(e, TextDelta))


def ramp(n_samples: int) -> np.ndarray:
    return (np.arange(n_samples) % 7).astype(np.float32)


def run(
    blocks: Sequence[np.ndarray], cost_s: float = 0.0, until_s: float = 1e9
) -> tuple[Notes, StreamMetrics, Counting]:
    clock, notes, metrics = Clock(), Notes(), StreamMetrics()
    stream = Counting(clock, cost_s, until_s)
    Captions(Paced(clock, blocks), stream, [notes], metrics, clock=clock).run()
    return notes, metrics, stream


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=30), st.floats(0, 0.3))
def test_every_sample_is_decoded_once_however_it_comes(
    lengths: list[int], cost_s: float
) -> None:
    sound = ramp(sum(lengths))
    notes, _, stream = run(np.split(sound, np.cumsum(lengths[:-1])), cost_s)
    whole, _, _ = run([sound])
    assert notes.events == whole.events
    assert notes.n_heard == sum(stream.pushed) == len(sound)


def test_a_machine_half_as_fast_for_thirty_seconds_catches_up() -> None:
    blocks = np.split(ramp(60 * 16_000), 6000)
    slowed, metrics, stream = run(blocks, cost_s=0.160, until_s=30.0)
    undisturbed, _, _ = run(blocks)
    assert slowed.text == undisturbed.text
    assert max(slowed.lags) > 10
    assert metrics.lag_s < 0.1
    assert max(stream.pushed) > 10 * TOKEN  # larger steps while behind
    assert stream.pushed[-1] == TOKEN  # single ones again


def test_steps_of_a_backlog_are_bounded_so_that_signals_are_heard() -> None:
    *_, stream = run([ramp(16_000) for _ in range(60)], cost_s=0.001)
    assert max(stream.pushed) <= 32 * TOKEN + 16_000


def test_a_file_is_not_read_further_ahead_than_a_step_or_two() -> None:
    clock = Clock()

    class Fast(Paced):
        n_ahead = 0

        def read(self, timeout_s: float) -> list[Block]:
            if not self.due:
                self.is_ended = True
                return []
            ready = [self.due.pop(0) for _ in range(min(10, len(self.due)))]
            n_read = 10 * 16_000 * 60 - sum(len(b.samples) for b in self.due)
            self.n_ahead = max(self.n_ahead, n_read - sum(counting.pushed))
            return ready

    counting = Counting(clock)
    source = Fast(clock, [ramp(16_000)] * 600)
    Captions(source, counting, [], StreamMetrics(), clock=clock).run()
    assert sum(counting.pushed) == 600 * 16_000
    assert source.n_ahead <= 32 * TOKEN + 10 * 16_000


def test_stopping_from_a_signal_handler_leaves_the_source_to_the_loop() -> None:
    clock = Clock()
    source = Paced(clock, [ramp(160)] * 100)
    stopped_in: list[str] = []
    source.stop = lambda: (stopped_in.append("loop"), source.due.clear())  # pyright: ignore[reportAttributeAccessIssue]
    captions = Captions(source, Counting(clock), [], StreamMetrics(), clock=clock)
    captions.stop()
    assert stopped_in == []
    captions.run()
    assert stopped_in == ["loop"]


def test_what_is_said_elsewhere_is_shown_without_waiting_for_sound() -> None:
    class Elsewhere(Counting):
        """Says something 0.3 s after the last sound, and its end bit by bit."""

        n_said = 0

        @property
        def samples_wanted(self) -> int:
            return 0 if clock.now > 1.3 and not self.n_said else TOKEN

        def push(self, samples: np.ndarray, /) -> list[Event]:
            if clock.now < 1.3:
                return []
            self.n_said += 1
            shown_at.append(clock.now)
            return [TextDelta("news", 0)]

        def finish(self) -> list[Event]:
            self.n_said += 1
            return [Finished(0, 0)] if self.n_said == 4 else [TextDelta("!", 0)]

    clock, notes = Clock(), Notes()
    shown_at: list[float] = []
    silence = Paced(clock, [ramp(1600)] * 10)
    silence.due.append(Block(ramp(0), 5.0))
    Captions(silence, Elsewhere(clock), [notes], StreamMetrics(), clock=clock).run()
    assert shown_at == [pytest.approx(1.4, abs=0.11)]
    assert notes.text == "news!!"


def test_the_lag_of_a_lagging_stream_is_the_age_of_what_is_shown() -> None:
    slowed, _, _ = run(np.split(ramp(60 * 16_000), 6000), cost_s=0.160)
    # Sixty seconds at half the speed: the last is shown sixty seconds late.
    assert max(slowed.lags) == pytest.approx(60, abs=0.5)


def test_the_lag_of_a_token_is_from_its_last_sample_to_its_events() -> None:
    _, metrics, _ = run(np.split(ramp(160_000), 1000), cost_s=0.02)
    figures = metrics.figures()
    assert figures.n_tokens == 125
    assert figures.lag_p50_ms == pytest.approx(20, abs=0.1)
    assert figures.lag_p95_ms == pytest.approx(20, abs=0.1)
    assert figures.step_p50_ms == pytest.approx(20, abs=0.1)
    assert figures.tokens_per_s == pytest.approx(50, rel=1e-3)


def test_figures_do_not_grow_with_the_stream() -> None:
    metrics = StreamMetrics()
    for _ in range(22_500):  # half an hour
        metrics.stepped(1, 0.01, [0.02])
    held = held_bytes(metrics)
    for _ in range(17_500):
        metrics.stepped(1, 0.01, [0.02])
    assert metrics.figures().n_tokens == 40_000
    assert held_bytes(metrics) < 1.01 * held


@pytest.mark.parametrize(
    ("amplitude", "level_db"),
    [(0.0, -96.0), (1.0, -3.01), (0.1, -23.01), (1e-6, -96.0)],
)
def test_the_level_is_the_power_of_the_latest_tenth_of_a_second(
    amplitude: float, level_db: float
) -> None:
    tone = amplitude * np.sin(2 * np.pi * 100 * np.arange(1600) / 16_000)
    metrics = StreamMetrics()
    metrics.pushed(np.concatenate([np.ones(5000), tone]).astype(np.float32))
    assert metrics.level_db == pytest.approx(level_db, abs=0.01)


def test_a_machine_that_cannot_keep_up_is_told_so_once() -> None:
    said: list[str] = []
    clock, metrics = Clock(), StreamMetrics()
    warning = LagWarning(said.append, clock=clock)
    for lag_s in (6.0, 0.0, 6.0, 7.0):  # not 20 s on end
        metrics.stepped(1, 0.16, [lag_s])
        clock.now += 19
        warning.on_tick(metrics)
    assert said == []
    for _ in range(3):
        clock.now += 19
        warning.on_tick(metrics)
    (sentence,) = said
    assert "decodes 6.2 tokens/s and real time needs 12.5" in sentence
    assert "fewer bits" in sentence


def test_a_server_that_cannot_keep_up_is_named() -> None:
    said: list[str] = []
    clock, metrics = Clock(), StreamMetrics()
    warning = LagWarning(said.append, "ws://there", clock=clock)
    metrics.stepped(1, 0.16, [6.0])
    for _ in range(3):
        clock.now += 19
        warning.on_tick(metrics)
    (sentence,) = said
    assert sentence.startswith("text lags by 6 s and no sound is dropped: ws://there")


def test_a_recovery_is_shown_and_the_second_one_with_a_hint() -> None:
    said: list[str] = []
    warning = RecoveryWarning(said.append, "auto")
    for time_ms in (800, 1600, 2400):
        warning.on_events([TextDelta("a", time_ms), Recovered("decoder", time_ms)])
    assert len(said) == 2
    assert "decoder" in said[0]
    assert "0.8 s" in said[0]
    assert "--dtype" not in said[0]
    assert "--dtype bfloat16" in said[1]
    in_float32: list[str] = []
    warning = RecoveryWarning(in_float32.append, "float32")
    warning.on_events([Recovered("encoder", 80), Recovered("encoder", 160)])
    assert "voxmlx.doctor" in in_float32[1]
