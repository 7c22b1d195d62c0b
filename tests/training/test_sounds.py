"""Training sound is changed as its functions say, and words stay where they end."""

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch: .[training]")
pytest.importorskip("scipy", reason="training needs scipy: .[training]")
pytest.importorskip("soxr", reason="training needs soxr: .[training]")

from training.formants import warp_formants
from training.microphones import limit_band, mu_law, overload, record, set_peak
from training.music import tune
from training.noises import (
    clicks,
    coloured,
    draw_non_speech,
    hum,
    knocks,
    swelling,
)
from training.rooms import desk, in_room, shoebox

RATE = 16_000
Rng = np.random.Generator


def vowel(
    pitch: float = 110.0, formants: tuple[float, ...] = (600, 1300)
) -> np.ndarray:
    """Return a second of harmonics under two formants, peak 0.5."""
    time = np.arange(RATE) / RATE
    hertz = pitch * np.arange(1, int(5000 / pitch))
    distance = (hertz[:, None] - np.array(formants)) / 150
    strength = (1 / (1 + distance**2)).sum(1) + 1e-3
    wave = strength @ np.sin(2 * np.pi * hertz[:, None] * time)
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def power(samples: np.ndarray) -> np.ndarray:
    """Return the power at every hertz of a second of sound."""
    return np.abs(np.fft.rfft(samples[:RATE])) ** 2


def loudest(samples: np.ndarray, low_hz: int, high_hz: int) -> int:
    """Return the frequency of the strongest band of 200 Hz in a range."""
    smooth = np.convolve(power(samples), np.ones(200), "same")
    return low_hz + int(smooth[low_hz:high_hz].argmax())


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_a_warp_moves_formants_and_leaves_pitch_and_length(factor: float) -> None:
    plain = vowel()
    warped = warp_formants(plain, factor)
    assert len(warped) == len(plain)
    assert abs(loudest(warped, 900, 2200) - 1300 * factor) < 90
    # Harmonics of 110 Hz hold nearly all power, as before.
    near = np.zeros(RATE // 2 + 1, bool)
    for harmonic in range(110, 5000, 110):
        near[harmonic - 8 : harmonic + 9] = True
    assert power(warped)[near].sum() > 0.97 * power(warped).sum()


def test_a_warp_by_one_returns_the_sound() -> None:
    plain = vowel()
    np.testing.assert_allclose(warp_formants(plain, 1.0), plain, atol=2e-4)


def test_a_band_keeps_what_is_within_and_drops_what_is_outside() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    kept = power(limit_band(noise, 300, 3400)) / power(noise)
    assert kept[400:3300].min() > 0.99
    assert kept[3800:].max() < 1e-6
    assert kept[:200].max() < 0.2


def test_mu_law_has_256_values_at_most_and_errs_by_two_percent() -> None:
    samples = np.linspace(-1, 1, 50_000, dtype=np.float32)
    coded = mu_law(samples)
    assert len(np.unique(coded)) <= 256
    assert np.abs(coded - samples).max() < 0.025
    faint = np.abs(samples) < 0.01
    assert np.abs(coded - samples)[faint].max() < 5e-4


def test_an_overloaded_sound_is_cut_at_full_scale() -> None:
    loud = overload(vowel(), 10.0)
    assert np.abs(loud).max() == 1
    assert (np.abs(loud) == 1).mean() > 0.05


@pytest.mark.parametrize("dbfs", [-45.0, -6.0])
def test_a_peak_is_set_and_silence_stays_silent(dbfs: float) -> None:
    peak = np.abs(set_peak(vowel(), dbfs)).max()
    assert 20 * np.log10(peak) == pytest.approx(dbfs, abs=1e-3)
    assert not set_peak(np.zeros(10, np.float32), dbfs).any()


@pytest.mark.parametrize("make", [desk, shoebox])
def test_a_room_answers_after_the_direct_sound_and_dies_away(
    make: Callable[[Rng], np.ndarray],
) -> None:
    for seed in range(20):
        response = make(np.random.default_rng(seed))
        assert response[0] == 1
        assert len(response) <= RATE // 2
        assert np.abs(response[1:]).sum() > 0
        assert np.isfinite(response).all()


def test_sound_in_a_room_begins_where_it_began() -> None:
    sound = np.zeros(RATE, np.float32)
    sound[5000:5100] = 0.5
    wet = in_room(sound, shoebox(np.random.default_rng(1)))
    assert np.abs(wet[:5000]).max() < 1e-5
    assert np.abs(wet[5000:5100]).max() >= 0.3


@pytest.mark.parametrize("make", [tune, coloured, swelling, hum, clicks, knocks])
@pytest.mark.parametrize("n_samples", [400, 20_000])
def test_sound_without_speech_has_its_length_and_a_full_peak(
    make: Callable[[int, Rng], np.ndarray], n_samples: int
) -> None:
    for seed in range(3):
        sound = make(n_samples, np.random.default_rng(seed))
        assert sound.shape == (n_samples,)
        assert sound.dtype == np.float32
        peak = np.abs(sound).max()
        # A few ms may hold a rest, or no click.
        assert peak == pytest.approx(1, abs=1e-3) or (n_samples == 400 and not peak)


def test_brown_noise_falls_by_twenty_decibels_where_pink_falls_by_ten() -> None:
    fall = {}
    for exponent in (0.0, 1.0, 2.0):
        p = power(coloured(RATE, np.random.default_rng(2), exponent))
        fall[exponent] = 10 * np.log10(p[150:250].mean() / p[1500:2500].mean())
    assert fall[0.0] == pytest.approx(0, abs=1.5)
    assert fall[1.0] == pytest.approx(10, abs=1.5)
    assert fall[2.0] == pytest.approx(20, abs=1.5)


def test_the_same_seed_draws_the_same_line_and_noise() -> None:
    for draw in (draw_non_speech, lambda n, rng: record(vowel()[:n], rng)):
        first, again = (draw(9000, np.random.default_rng(7)) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert first.dtype == np.float32
