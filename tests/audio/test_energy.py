"""Speech is told from pauses as the sound comes, whatever pieces it comes in."""

import numpy as np
import pytest
from hypothesis import given, settings

from tests.contract import cut, piece_sizes
from tests.held import held_bytes
from tests.sounds import noise, silence, speech_like
from voxmlx.audio.energy import EnergyDetector

SOUND = speech_like(3 * 16_000 + 77, seed=4)


def heard(*pieces: np.ndarray) -> EnergyDetector:
    detector = EnergyDetector()
    for piece in pieces:
        detector.push(piece)
    return detector


def flags(detector: EnergyDetector) -> list[bool]:
    return [
        detector.is_speech(start, start + 10)
        for start in range(0, detector.decided_ms, 10)
    ]


@given(sizes=piece_sizes(len(SOUND)))
@settings(max_examples=25, deadline=None)
def test_decisions_do_not_depend_on_the_size_of_pieces(sizes: list[int]) -> None:
    assert flags(heard(*cut(SOUND, sizes))) == flags(heard(SOUND))


def test_single_samples_decide_the_same() -> None:
    sound = SOUND[:3000]
    one_by_one = heard(*(sound[i : i + 1] for i in range(len(sound))))
    assert flags(one_by_one) == flags(heard(sound))
    assert one_by_one.decided_ms == 180


def test_later_sound_changes_no_decision() -> None:
    detector = heard(SOUND[:20_000])
    before = flags(detector)
    detector.push(noise(16_000, level=0.3))
    assert flags(detector)[: len(before)] == before


@pytest.mark.parametrize("level", [0.0, 0.0005, 0.002])
def test_a_burst_after_noise_is_found_where_it_is(level: float) -> None:
    quiet = noise(16_000, seed=1, level=level)
    detector = heard(quiet, noise(8000, seed=2), quiet)
    assert not detector.is_speech(0, 1000)
    assert detector.onset(0, 2500, gap_ms=150) == 1000
    assert detector.onset(1200, 1400, gap_ms=150) == 1200
    assert detector.is_speech(1000, 1500)
    assert not detector.is_speech(1510, 2500)


def test_the_onset_is_that_of_the_last_stretch() -> None:
    burst, pause = noise(3200, seed=3), silence(4800)
    detector = heard(burst, pause, burst, silence(1600), burst, pause)
    assert detector.onset(0, 1600, gap_ms=150) == 500
    assert detector.onset(0, 1600, gap_ms=50) == 800
    assert detector.onset(210, 490, gap_ms=50) is None


def test_silence_is_never_speech() -> None:
    assert not any(flags(heard(silence(32_000))))
    assert not any(flags(heard(noise(32_000, level=0.0004))))


def test_steady_noise_stops_being_speech() -> None:
    detector = heard(*(noise(16_000, seed=i, level=0.05) for i in range(35)))
    assert not detector.is_speech(33_000, 35_000)


def test_what_is_remembered_does_not_grow() -> None:
    detector = EnergyDetector(memory_ms=1000)
    for _ in range(2):
        detector.push(noise(32_000))
    held = held_bytes(detector)
    detector.push(noise(32_000))
    assert held_bytes(detector) <= held + 100
    assert detector.decided_ms == 6000
    assert detector.onset(0, 6000, gap_ms=150) == 5000


def tone(level_dbfs: float, duration_ms: int) -> np.ndarray:
    """A square wave, whose level is that of every 10 ms."""
    amplitude = 10 ** (level_dbfs / 20)
    return np.tile(np.array([amplitude, -amplitude], np.float32), 8 * duration_ms)


# The floor rises from -52 dBFS by 1 dB a second, so it is at -40 dBFS after this.
HUM = tone(-40, 13_000)


def test_speech_begins_12_decibels_above_the_floor_and_ends_below_6() -> None:
    assert not heard(HUM, tone(-28.5, 50)).is_speech(13_000, 13_050)
    assert heard(HUM, tone(-27.5, 50)).is_speech(13_000, 13_050)
    detector = heard(HUM, tone(-25, 50), tone(-33, 50), tone(-35, 50), tone(-33, 50))
    assert [detector.is_speech(13_000 + t, 13_050 + t) for t in (0, 50, 100, 150)] == [
        True,
        True,
        False,
        False,
    ]


def test_the_floor_falls_with_the_sound_but_not_at_once() -> None:
    assert not heard(HUM, silence(800), tone(-45, 10)).is_speech(13_050, 13_060)
    assert heard(HUM, silence(3200), tone(-45, 10)).is_speech(13_200, 13_210)


def test_a_constant_offset_is_silence() -> None:
    assert not any(flags(heard(np.full(16_000, 0.5, np.float32))))


def test_a_gap_as_long_as_asked_for_ends_a_stretch() -> None:
    quiet, loud = silence(1600), tone(-10, 100)
    detector = heard(quiet, loud, quiet, loud)
    assert detector.onset(0, 400, gap_ms=100) == 300
    assert detector.onset(0, 400, gap_ms=110) == 100
    assert detector.onset(0, 310, gap_ms=100) == 300
    assert detector.onset(0, 110, gap_ms=100) == 100
