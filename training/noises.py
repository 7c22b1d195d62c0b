"""Sound without speech: noises of several colours, hum, clicks, knocks, music."""

from collections.abc import Callable

import numpy as np
from scipy import fft

from training.microphones import limit_band, set_peak
from training.music import tune
from training.synthesis import SAMPLE_RATE

_Rng = np.random.Generator

__all__ = ["clicks", "coloured", "draw_non_speech", "hum", "knocks", "swelling"]


def coloured(n_samples: int, rng: _Rng, exponent: float | None = None) -> np.ndarray:
    """Return noise whose power falls with f ** exponent: 0 white, 1 pink, 2 brown."""
    fall = rng.uniform(-0.3, 2.2) if exponent is None else exponent
    n_fft = fft.next_fast_len(n_samples, real=True)
    spectrum = fft.rfft(rng.standard_normal(n_fft, np.float32))
    hertz = np.linspace(0, SAMPLE_RATE / 2, len(spectrum)).clip(30)
    weight = (hertz ** (-fall / 2)).astype(np.float32)
    return set_peak(fft.irfft(spectrum * weight, n_fft)[:n_samples], 0)


def swelling(n_samples: int, rng: _Rng) -> np.ndarray:
    """Return noise of one band that swells and fades, as wind, traffic or breath."""
    low_hz = 40 * 2 ** rng.uniform(0, 5)
    noise = limit_band(
        coloured(n_samples, rng), low_hz, min(7900, low_hz * 2 ** rng.uniform(1, 4))
    )
    knots = max(2, int(n_samples / SAMPLE_RATE * rng.uniform(0.5, 8)))
    swell = 10 ** (rng.uniform(-35, 0, knots) / 20)
    at = np.linspace(0, knots - 1, n_samples)
    return set_peak(noise * np.interp(at, np.arange(knots), swell), 0).astype("f4")


def hum(n_samples: int, rng: _Rng) -> np.ndarray:
    """Return a mains or motor tone with harmonics that drift a little."""
    hertz = rng.choice([50, 60, rng.uniform(40, 400)])
    drift = 1 + 0.01 * np.sin(np.arange(n_samples) * rng.uniform(0, 3) / SAMPLE_RATE)
    angle = np.cumsum(2 * np.pi * hertz / SAMPLE_RATE * drift)
    strength = rng.uniform(0, 1, 12) / np.arange(1, 13) ** rng.uniform(0.3, 2)
    tone = sum(s * np.sin(k * angle) for k, s in enumerate(strength, 1))
    hiss = 0.02 * rng.standard_normal(n_samples)
    return set_peak((tone + hiss).astype(np.float32), 0)


def clicks(n_samples: int, rng: _Rng) -> np.ndarray:
    """Return single samples at random, some ringing: switches, keys, scratches."""
    per_second = 2 ** rng.uniform(-1, 5)
    is_click = rng.random(n_samples) < per_second / SAMPLE_RATE
    train = is_click * rng.uniform(-1, 1, n_samples)
    if rng.random() < 0.6:
        time = np.arange(int(rng.uniform(0.001, 0.02) * SAMPLE_RATE)) / SAMPLE_RATE
        angle = 2 * np.pi * rng.uniform(300, 6000) * time
        train = np.convolve(train, np.cos(angle) * np.exp(-time * 400))[:n_samples]
    return set_peak(train.astype(np.float32), 0)


def knocks(n_samples: int, rng: _Rng) -> np.ndarray:
    """Return short bursts of noise with a decay: doors, steps, dishes, a cough."""
    sound = np.zeros(n_samples, np.float32)
    n_bursts = max(1, int(n_samples / SAMPLE_RATE * 2 ** rng.uniform(-1, 2.5)))
    for at in rng.integers(0, n_samples, n_bursts):
        n = int(rng.uniform(0.03, 0.4) * SAMPLE_RATE)
        burst = coloured(n, rng) * np.exp(-np.linspace(0, rng.uniform(3, 9), n))
        burst = burst[: n_samples - at] * rng.uniform(0.2, 1)
        sound[at : at + len(burst)] += burst
    return set_peak(sound, 0)


_KINDS: tuple[tuple[float, Callable[[int, _Rng], np.ndarray]], ...] = (
    (5, tune),
    (1, coloured),
    (1, swelling),
    (0.6, hum),
    (1, clicks),
    (1, knocks),
)
_WEIGHTS = np.array([weight for weight, _ in _KINDS])


def draw_non_speech(n_samples: int, rng: _Rng) -> np.ndarray:
    """Return float32 sound [n_samples] of a random kind, its peak at full scale."""
    kind = rng.choice(len(_KINDS), p=_WEIGHTS / _WEIGHTS.sum())
    return _KINDS[kind][1](n_samples, rng)
