"""Devices whose clocks differ stay together, without a jump in the sound."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.held import held_bytes
from voxmlx.audio.block_queue import Block
from voxmlx.audio.clock_drift import ClockDrift
from voxmlx.audio.steady_sound import SteadySound

RATE = 16_000
BLOCK_S = 0.1


class Device:
    """A device whose clock is off by `ppm`; blocks wait up to 40 ms on their way."""

    def __init__(self, ppm: float, latency_s: float = 0.02, seed: int = 1) -> None:
        self._rate = RATE * (1 + ppm * 1e-6)
        self._latency_s = latency_s
        self._rng = np.random.default_rng(seed)
        self.n = 0
        self.waits_s: list[float] = []

    def block(self, sound: np.ndarray) -> Block:
        """The next samples, and when the clock says that they came."""
        self.n += len(sound)
        wait_s = self._latency_s + float(self._rng.exponential(0.008))
        self.waits_s.append(wait_s)
        return Block(sound, 1000 + self.n / self._rate + wait_s)

    def clicks(self, seconds: float, every_s: float) -> Iterator[Block]:
        """A click at every multiple of `every_s` of the true time."""
        n_block = round(BLOCK_S * RATE)
        next_click = every_s
        while self.n < seconds * RATE:
            sound = np.zeros(n_block, np.float32)
            at = round(next_click * self._rate) - self.n
            if at < n_block:
                sound[at] = 1.0
                next_click += every_s
            yield self.block(sound)


def heard_clicks(sound: SteadySound, blocks: Iterator[Block]) -> np.ndarray:
    """Stream times of the clicks in seconds."""
    times: list[float] = []
    n = 0
    for block in blocks:
        out = sound.push(block).samples
        if len(out) and (at := int(out.argmax())) >= 0 and out[at] > 0.3:
            times.append((n + at) / RATE)
        n += len(out)
    return np.array(times)


@pytest.mark.parametrize("ppm", [100.0, -100.0])
def test_after_an_hour_at_100_ppm_the_drift_is_known(ppm: float) -> None:
    device, drift = Device(ppm), ClockDrift()
    late_ms: list[float] = []
    nothing = np.zeros(round(BLOCK_S * RATE), np.float32)
    while device.n < 3600 * RATE:
        time_s = device.block(nothing).time - 1000
        sound_s = device.n / RATE
        drift.observe(sound_s, time_s)
        if device.n % RATE:
            continue
        assert drift.take_lost_s() == 0
        # The clock's time of the sound, as far as the line is right, but for latency.
        late_ms.append(1000 * (sound_s + drift.lateness_s(time_s)) - 1000 * time_s)
    assert drift.rate == pytest.approx(-ppm * 1e-6, abs=10e-6)
    waits = np.array(late_ms[60:]) + 1000 * np.array(device.waits_s[609::10])
    assert np.abs(waits - 20).max() < 2  # uncorrected: 360 ms


def drifted_ms(ppm: float, seconds: float) -> np.ndarray:
    """How far clicks lie from where they were heard by the clock, after half a minute."""
    every_s = 10.0
    times = heard_clicks(SteadySound(1000.0), Device(ppm).clicks(seconds, every_s))
    late_ms = 1000 * (times - every_s * np.arange(1, len(times) + 1))
    assert len(times) >= seconds / every_s - 1
    return late_ms


def test_sound_is_where_the_clock_says_and_stays_there() -> None:
    late_ms = drifted_ms(300.0, 300)
    assert np.abs(late_ms - 25).max() < 12  # latency is 20 ms; uncorrected: 90 ms
    assert np.ptp(late_ms[12:]) < 4


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [100.0, -100.0])
def test_after_an_hour_at_100_ppm_sound_is_where_the_clock_says(ppm: float) -> None:
    late_ms = drifted_ms(ppm, 3600)
    assert np.abs(late_ms - 25).max() < 12
    assert np.ptp(late_ms[12:]) < 4  # uncorrected: 360 ms


def test_two_devices_are_together_whenever_they_were_opened() -> None:
    early, late = Device(80.0, seed=2), Device(-60.0, seed=3)
    late.n = round(0.4 * RATE)  # opened 0.4 s later
    both = [
        heard_clicks(SteadySound(1000.0), device.clicks(120, 5.0))
        for device in (early, late)
    ]
    n = min(map(len, both))
    assert n > 21
    assert np.abs(both[0][:n] - both[1][:n]).max() < 0.020


def test_what_has_piled_up_at_the_beginning_is_placed_where_it_was_heard() -> None:
    sound = SteadySound(1000.0)
    clicks = list(Device(0.0).clicks(20, 2.0))
    # The first second comes at once, 0.7 s after the device was opened.
    late = [Block(block.samples, max(block.time, 1001.0)) for block in clicks]
    times = heard_clicks(sound, iter(late))
    assert times == pytest.approx(2.0 * np.arange(1, len(times) + 1) + 0.025, abs=0.012)


def test_a_pause_takes_no_stream_time_and_what_opening_takes_is_silence() -> None:
    device, sound = Device(0.0), SteadySound(1000.0)
    nothing = np.zeros(1600, np.float32)
    for _ in range(40):
        sound.push(device.block(nothing))
    n_before = sound.n_samples
    device.n += round(7.3 * RATE)  # 7 s of pause, and 0.3 s until it is open
    sound.hold(7.0)
    sound.note_gap()
    assert len(sound.push(device.block(nothing)).samples) == pytest.approx(
        (0.3 + 0.1) * RATE, abs=0.05 * RATE
    )
    for _ in range(9):
        sound.push(device.block(nothing))
    assert sound.n_samples - n_before == pytest.approx(1.3 * RATE, abs=0.05 * RATE)


def test_a_stream_that_ends_at_once_is_not_lost() -> None:
    device, sound = Device(0.0), SteadySound(1000.0)
    tone = np.full(1600, 0.25, np.float32)
    out = [sound.push(device.block(tone)).samples for _ in range(3)]
    out.append(sound.flush())
    assert np.abs(np.concatenate(out)).sum() == pytest.approx(0.25 * 4800, rel=0.01)
    assert len(SteadySound(1000.0).flush()) == 0


def test_a_tone_has_no_jump_while_the_rate_is_corrected() -> None:
    device, sound = Device(2000.0), SteadySound(1000.0)
    tone = np.sin(2 * np.pi * 500 * np.arange(20 * RATE) / RATE).astype(np.float32)
    out = np.concatenate(
        [sound.push(device.block(part)).samples for part in np.split(tone, 200)]
    )
    out = out[np.flatnonzero(out)[0] + 800 :]
    # From one sample to the next a tone of 500 Hz changes by 0.197 at most.
    assert np.abs(np.diff(out)).max() < 0.2
    assert np.abs(np.diff(out, 2)).max() < 0.0395


def test_what_a_device_lost_is_silence_and_the_rest_is_where_it_was() -> None:
    device, sound = Device(50.0), SteadySound(1000.0)
    heard_clicks(sound, device.clicks(40, 5.0))
    n_before = sound.n_samples
    device.n += round(0.3 * RATE)  # the clock goes on, the sound does not come
    for _ in range(300):
        sound.push(device.block(np.zeros(1600, np.float32)))
    assert sound.n_samples - n_before == pytest.approx(30.3 * RATE, abs=200)


def test_a_device_that_stalls_for_two_seconds_and_catches_up_has_lost_nothing() -> None:
    drift = ClockDrift()
    for second in range(600):
        is_late = 300 <= second < 302
        drift.observe(second, second + 0.02 + 2.0 * is_late)
        assert drift.take_lost_s() == 0
    assert drift.lateness_s(600) == pytest.approx(0.02, abs=1e-6)
    assert drift.rate == pytest.approx(0, abs=1e-9)


def test_a_clock_that_is_further_off_than_any_device_is_not_believed() -> None:
    drift = ClockDrift()
    for second in range(300):
        drift.observe(second, second * 1.01)
    assert drift.rate == 500e-6


def test_what_is_remembered_of_a_device_does_not_grow() -> None:
    drift = ClockDrift()
    for second in range(600):
        drift.observe(second, second + 0.02)
    held = held_bytes(drift)
    for second in range(600, 6000):
        drift.observe(second, second + 0.02)
    assert held_bytes(drift) <= held
