"""The resampler: band-limited, in time, and blind to how its input is cut."""

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract import cut, piece_sizes
from tests.sounds import noise
from voxmlx.audio.resample import Resampler, check_rate
from voxmlx.errors import AudioError

RATES = (8_000, 11_025, 22_050, 24_000, 44_100, 48_000, 96_000)


def resample(pieces: list[np.ndarray], rate: int) -> np.ndarray:
    resampler = Resampler(rate)
    parts = [resampler.push(piece) for piece in pieces]
    return np.concatenate([*parts, resampler.flush()])


def tone(hertz: float, rate: int, duration_s: float = 1.0) -> np.ndarray:
    """A sine of amplitude 0.5 that starts at 0, float32."""
    time_s = np.arange(round(rate * duration_s)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time_s)).astype(np.float32)


def decibels(sound: np.ndarray, reference: np.ndarray) -> float:
    power = np.mean(sound.astype(np.float64) ** 2) / np.mean(
        reference.astype(np.float64) ** 2
    )
    return 10 * float(np.log10(max(power, 1e-30)))


@settings(deadline=None)
@given(rate=st.sampled_from(RATES), sizes=piece_sizes(30_000))
def test_output_does_not_depend_on_pieces(rate: int, sizes: list[int]) -> None:
    sound = noise(30_000, level=0.2)
    np.testing.assert_array_equal(
        resample(cut(sound, sizes), rate), resample([sound], rate)
    )


@pytest.mark.parametrize("rate", RATES)
def test_output_is_that_of_soxr_at_once(rate: int) -> None:
    sound = noise(rate, level=0.2)
    np.testing.assert_array_equal(
        resample([sound], rate), soxr.resample(sound, rate, 16_000, "HQ")
    )


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("n_samples", [1, 2, 159, 4_001, 20_000])
def test_output_lasts_as_long_as_input(rate: int, n_samples: int) -> None:
    got = resample([noise(n_samples)], rate)
    assert abs(len(got) - n_samples * 16_000 / rate) <= 0.5


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_a_10_khz_tone_vanishes(rate: int) -> None:
    # Without its ends: a tone that starts at once has all frequencies there.
    sound = tone(10_000, rate)
    got = resample([sound], rate)[800:-800]
    assert decibels(got, sound) < -80


@pytest.mark.parametrize("rate", RATES)
def test_a_1_khz_tone_keeps_its_level(rate: int) -> None:
    sound = tone(1_000, rate)
    got = resample([sound], rate)
    # Whole periods at both rates.
    assert abs(decibels(got[1600:-1600], tone(1_000, 16_000)[1600:-1600])) < 0.01


@pytest.mark.parametrize("rate", RATES)
def test_a_1_khz_tone_keeps_its_place_in_time(rate: int) -> None:
    got = resample([tone(1_000, rate)], rate)
    expected = tone(1_000, 16_000)
    # A shift by a hundredth of a sample at 16 kHz would differ by 0.002.
    np.testing.assert_allclose(got[800:-800], expected[800:-800], rtol=0, atol=1e-3)


def test_sound_at_16_khz_passes_untouched() -> None:
    sound = noise(5_000, level=0.9)
    np.testing.assert_array_equal(resample([sound], 16_000), sound)


@pytest.mark.parametrize("rate", [-16_000, 0, 999, 1_000_001, 2**31 - 1])
def test_a_rate_no_sound_has_is_refused(rate: int) -> None:
    with pytest.raises(AudioError, match=f"{rate} Hz, expected 1000 to"):
        Resampler(rate)
    with pytest.raises(AudioError, match=r"talk\.wav claims"):
        check_rate(rate, "talk.wav")
