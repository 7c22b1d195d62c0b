"""Random speed, tone, band, room, level and noise for training sound."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft

SAMPLE_RATE = 16_000

__all__ = ["augment_utterance", "background_noise"]


@dataclass(frozen=True, slots=True)
class _Odds:
    """How often each change is made."""

    tilt: float = 0.6
    equaliser: float = 0.4
    telephone: float = 0.12
    room: float = 0.25


ODDS = _Odds()


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play faster by `factor`; pitch moves along, as with a tape."""
    n_out = int(len(samples) / factor)
    positions = np.arange(n_out) * factor
    return np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)


def equalise(
    samples: np.ndarray, rng: np.random.Generator, *, is_telephone: bool
) -> np.ndarray:
    """A smooth random curve of +-8 dB, and if asked the band of a telephone."""
    size = fft.next_fast_len(len(samples), real=True)
    spectrum = fft.rfft(samples, size)  # float32 in, complex64 out
    hertz = np.linspace(0, SAMPLE_RATE / 2, len(spectrum))
    knots = [0, 250, 700, 1500, 3000, 5000, 8000]
    gain_db = np.interp(hertz, knots, rng.uniform(-8, 8, len(knots)))
    if is_telephone:
        low, high = rng.choice([0, 200, 300]), rng.choice([3400, 3800, 5500])
        gain_db += np.where(hertz > high, -60, 0) + np.where(hertz < low, -40, 0)
    gain = (10 ** (gain_db / 20)).astype(np.float32)
    return fft.irfft(spectrum * gain, size)[: len(samples)]


def reverberate(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Convolve with decaying noise, 80 to 450 ms to -60 dB."""
    n_tail = int(rng.uniform(0.08, 0.45) * SAMPLE_RATE)
    decay = np.exp(np.linspace(0, -6.9, n_tail, dtype=np.float32))
    impulse = rng.standard_normal(n_tail, dtype=np.float32) * decay
    impulse *= np.float32(rng.uniform(0.1, 0.5)) / np.sqrt((impulse**2).sum())
    impulse[0] = 1
    size = fft.next_fast_len(len(samples) + n_tail, real=True)
    wet = fft.irfft(fft.rfft(samples, size) * fft.rfft(impulse, size), size)
    return wet[: len(samples) + n_tail // 2]


def augment_utterance(
    samples: np.ndarray, word_ends: tuple[int, ...], rng: np.random.Generator
) -> tuple[np.ndarray, list[int]]:
    """One utterance as another microphone, room and speaker might give it."""
    speed = math.exp(rng.uniform(math.log(0.86), math.log(1.17)))
    samples = change_speed(samples, speed)
    if rng.random() < ODDS.tilt:
        samples[1:] += np.float32(rng.uniform(-0.7, 0.7)) * samples[:-1]
    if rng.random() < ODDS.equaliser:
        is_telephone = rng.random() < ODDS.telephone / ODDS.equaliser
        samples = equalise(samples, rng, is_telephone=is_telephone)
    if rng.random() < ODDS.room:
        samples = reverberate(samples, rng)
    peak = 0.7 * 10 ** (rng.uniform(-22, 3) / 20)
    samples *= np.float32(peak / max(float(np.abs(samples).max()), 1e-3))
    return samples, [int(end / speed) for end in word_ends]


def background_noise(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """White to brownish noise between -75 and -30 dB of full scale."""
    noise = rng.standard_normal(n_samples, dtype=np.float32)
    if rng.random() < 0.6:
        noise[1:] += np.float32(rng.uniform(0.5, 0.98)) * noise[:-1]
    if rng.random() < 0.3:
        noise[2:] += noise[:-2]
    level = 10 ** (rng.uniform(-75, -30) / 20)
    return noise * np.float32(level / noise.std())
