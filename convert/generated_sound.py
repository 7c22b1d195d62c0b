"""Makes sound that resembles speech, for who has none to calibrate with.

It is a row of syllables and pauses, each of random length, pitch, loudness and color. A
voiced one is harmonics of its pitch, a hissed one is noise. Four random resonances shape
both, as those of a mouth do. Faint noise lies under all. No word is in it.
"""

import numpy as np
from numpy.typing import NDArray

from voxmlx.config import SAMPLE_RATE

from .quality import Sound

__all__ = ["generated_sounds"]

_N_SOUNDS = 90
_SECONDS = 4

_PAUSES = 0.2  # share of syllables that are silent
_VOICED = 0.7  # share of the others that have a pitch
_SYLLABLE_SECONDS = 0.04, 0.2
_PITCH_HZ = 80, 260
_RESONANCE_HZ = 200, 5000
_HIGHEST_HZ = 7500


def generated_sounds() -> list[Sound]:
    """Return six minutes of sound, the same every time."""
    rng = np.random.default_rng(0)
    n = _SECONDS * SAMPLE_RATE
    return [
        Sound(f"generated {i}", _sound(n, rng), None, has_words=False)
        for i in range(_N_SOUNDS)
    ]


def _sound(n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    samples = rng.standard_normal(n) * rng.uniform(0.0001, 0.003)
    start = 0
    while start < n:
        length = int(rng.uniform(*_SYLLABLE_SECONDS) * SAMPLE_RATE)
        end = min(start + length, n)
        if rng.random() >= _PAUSES:
            samples[start:end] += _syllable(length, rng)[: end - start]
        start = end
    return samples.astype(np.float32)


def _syllable(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    is_voiced = rng.random() < _VOICED
    spectrum = np.fft.rfft(_voice(n, rng) if is_voiced else rng.standard_normal(n))
    hertz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    gain = np.full(len(hertz), 0.02)
    for _ in range(4):
        center, width = rng.uniform(*_RESONANCE_HZ), rng.uniform(60, 300)
        gain += rng.uniform(0.2, 1) * np.exp(-(((hertz - center) / width) ** 2))
    syllable = np.fft.irfft(spectrum * gain, n) * np.hanning(n) ** 0.3
    return syllable * rng.uniform(0.03, 0.3) / max(np.abs(syllable).max(), 1e-9)


def _voice(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Harmonics of one pitch; the higher the fainter."""
    pitch, time = rng.uniform(*_PITCH_HZ), np.arange(n) / SAMPLE_RATE
    orders = np.arange(1, min(39, int(_HIGHEST_HZ / pitch)) + 1)[:, None]
    phases = rng.uniform(0, 2 * np.pi, orders.shape)
    return (np.cos(2 * np.pi * pitch * orders * time + phases) / orders**0.5).sum(0)
