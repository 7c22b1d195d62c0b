"""Sounds that nobody speaks in, from a seed: clicks, noises, hum, silence, music."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["NON_SPEECH"]

_RATE = 16_000
_Sound = NDArray[np.float32]


def _clicks(n: int, rng: np.random.Generator) -> _Sound:
    """Return two clicks of one sample a second, at random, half of full scale."""
    return ((rng.random(n) < 1 / 8000) * 0.5).astype(np.float32)


def _white(n: int, rng: np.random.Generator) -> _Sound:
    return _scaled(rng.standard_normal(n), 0.05)


def _pink(n: int, rng: np.random.Generator) -> _Sound:
    spectrum = np.fft.rfft(rng.standard_normal(n))
    return _scaled(np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), n))


def _hum(n: int, rng: np.random.Generator) -> _Sound:
    """Return the mains, with harmonics and a little hiss."""
    angle = 2 * np.pi * 50 / _RATE * np.arange(n)
    waves = sum(np.sin(k * angle + rng.uniform(0, 6)) / k for k in range(1, 12))
    return _scaled(waves + 0.02 * rng.standard_normal(n), 0.1)


def _silence(n: int, rng: np.random.Generator) -> _Sound:
    del rng
    return np.zeros(n, np.float32)


def _music(n: int, rng: np.random.Generator) -> _Sound:
    """Return a tune in C major with chords; with drums for every other seed."""
    sound = np.zeros(n + 8 * _RATE)
    beat_s = 60 / rng.uniform(70, 150)
    instrument, has_drums = int(rng.integers(3)), bool(rng.integers(2))
    at_s = 0.0
    while at_s < n / _RATE:
        at = int(at_s * _RATE)
        length_s = beat_s * float(rng.choice([0.5, 1, 1, 2]))
        degree = int(rng.choice([0, 2, 4, 5, 7, 9, 11]))
        pitches = [(48 + degree + 12 * int(rng.integers(3)), 1.0, length_s)]
        if rng.random() < 0.5:
            pitches += [(48 + third, 0.5, 2 * beat_s) for third in (0, 4, 7)]
        for pitch, level, seconds in pitches:
            note = level * _note(pitch, seconds, instrument)
            sound[at : at + len(note)] += note
        if has_drums:
            time = np.arange(_RATE // 10) / _RATE
            drum = rng.standard_normal(len(time)) * np.exp(-40 * time)
            sound[at : at + len(time)] += 0.8 * drum
        at_s += length_s
    return _scaled(sound[:n], 0.1)


def _note(pitch: int, seconds: float, instrument: int) -> NDArray[np.float64]:
    """Return a note of a piano, an organ or strings with vibrato."""
    time = np.arange(int(seconds * _RATE)) / _RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    angle = 2 * np.pi * frequency * time
    edge = np.minimum(1, np.minimum(time, seconds - time) / 0.03)
    if instrument == 0:
        edge = edge * np.exp(-4 * time)
    if instrument == 2:
        angle = angle + 0.006 * frequency / 5.5 * np.sin(2 * np.pi * 5.5 * time)
    harmonics = range(1, 1 + min(7, int(7500 / frequency)))
    return edge * sum(np.sin(k * angle) / k for k in harmonics)


def _scaled(sound: NDArray[np.float64], rms: float = 0.05) -> _Sound:
    level = sound * (rms / np.sqrt(np.mean(sound**2)))
    return np.clip(level, -1, 1).astype(np.float32)


# Name -> sound of n samples at 16 kHz.
NON_SPEECH: Mapping[str, Callable[[int, np.random.Generator], _Sound]] = {
    "clicks": _clicks,
    "white noise": _white,
    "pink noise": _pink,
    "hum": _hum,
    "silence": _silence,
    "music": _music,
}
