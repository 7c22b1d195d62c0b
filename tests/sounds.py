"""Seeded sound with the traits of speech, exact in 16-bit PCM."""

import numpy as np

__all__ = ["noise", "silence", "speech_like"]

_SAMPLE_RATE = 16_000


def silence(n_samples: int) -> np.ndarray:
    """Zeros, float32."""
    return np.zeros(n_samples, np.float32)


def noise(n_samples: int, seed: int = 0, level: float = 0.05) -> np.ndarray:
    """White noise of RMS `level`, float32."""
    return _as_pcm16(np.random.default_rng(seed).standard_normal(n_samples) * level)


def speech_like(n_samples: int, seed: int = 0) -> np.ndarray:
    """Voiced and hissed syllables between pauses, float32 within (-0.6, 0.6).

    Pauses are digital silence or faint noise by turns. PCM16-exact, because
    transformers' processor rounds float sound to 16 bits on its way.
    """
    rng = np.random.default_rng(seed)
    sound = np.zeros(n_samples)
    start = 0
    while start < n_samples:
        length = int(rng.uniform(0.05, 0.30) * _SAMPLE_RATE)
        kind = rng.choice(3, p=(0.6, 0.2, 0.2))
        if kind == 0:
            part = _voiced(length, rng)
        elif kind == 1:
            part = rng.standard_normal(length) * rng.uniform(0.01, 0.08)
        else:
            part = rng.standard_normal(length) * 0.001 * rng.integers(2)
        fade = np.minimum(
            1.0, np.minimum(np.arange(length), length - np.arange(length)) / 160
        )
        end = min(start + length, n_samples)
        sound[start:end] = (part * fade)[: end - start]
        start = end
    return _as_pcm16(sound)


def _voiced(length: int, rng: np.random.Generator) -> np.ndarray:
    """A gliding pitch whose harmonics are shaped by two formants."""
    time = np.arange(length) / _SAMPLE_RATE
    pitch = rng.uniform(90, 240)
    glide = rng.uniform(-0.3, 0.3) * pitch
    phase = 2 * np.pi * (pitch * time + glide * time**2)
    formants = rng.uniform((300, 900), (900, 2800))
    harmonics = np.arange(1, int(4000 / pitch) + 1)
    distance = (harmonics[:, None] * pitch - formants) / 200
    strength = (1 / (1 + distance**2)).sum(axis=1) + 0.02
    voice = strength @ np.sin(harmonics[:, None] * phase)
    voice += 0.02 * strength.sum() * rng.standard_normal(length)
    return rng.uniform(0.05, 0.4) * voice / np.abs(voice).max()


def _as_pcm16(sound: np.ndarray) -> np.ndarray:
    pcm = np.clip(np.rint(sound * 32768), -32768, 32767)
    return (pcm / 32768).astype(np.float32)
