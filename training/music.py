"""Music made of notes: melodies, chords, bass and drums of random instruments."""

from dataclasses import dataclass

import numpy as np

from training.microphones import set_peak
from training.synthesis import SAMPLE_RATE

# Steps in semitones: major, minor, pentatonic, whole tones.
_SCALES = (
    (0, 2, 4, 5, 7, 9, 11),
    (0, 2, 3, 5, 7, 8, 10),
    (0, 3, 5, 7, 10),
    (0, 2, 4, 6, 8, 10),
)
_N_HARMONICS = 10

__all__ = ["tune"]


@dataclass(frozen=True, slots=True)
class _Instrument:
    harmonics: np.ndarray  # amplitude of each
    attack_s: float
    decay: float  # per second
    vibrato_hz: float
    vibrato_depth: float  # of the frequency
    glide: float  # share of the frequency that a note comes from below

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "_Instrument":
        order = np.arange(1, _N_HARMONICS + 1)
        strength = rng.uniform(0.05, 1, _N_HARMONICS) / order ** rng.uniform(0.3, 2.5)
        if rng.random() < 0.3:
            strength[1::2] *= 0.1  # a closed pipe
        sings = rng.random() < 0.5
        return cls(
            strength,
            rng.uniform(0.002, 0.12),
            rng.choice([0.0, 1.0, 4.0, 10.0]),
            rng.uniform(4, 7),
            rng.uniform(0, 0.012) if sings else 0.0,
            rng.uniform(0, 0.06) if sings else 0.0,
        )

    def note(self, hertz: float, seconds: float) -> np.ndarray:
        time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        bend = 1 - self.glide * np.exp(-20 * time)
        bend = bend + self.vibrato_depth * np.sin(2 * np.pi * self.vibrato_hz * time)
        angle = np.cumsum(2 * np.pi * hertz / SAMPLE_RATE * bend).astype(np.float32)
        n = max(1, min(_N_HARMONICS, int(7600 / hertz)))
        order = np.arange(1, n + 1, dtype=np.float32)[:, None]
        wave = self.harmonics[:n].astype(np.float32) @ np.sin(order * angle)
        edge = np.minimum(time / self.attack_s, (seconds - time) / 0.03).clip(0, 1)
        return wave * edge * np.exp(-self.decay * time)


def _drum(rng: np.random.Generator) -> np.ndarray:
    """Return a beat of 0.15 s: a falling tone, or noise."""
    time = np.arange(int(0.15 * SAMPLE_RATE)) / SAMPLE_RATE
    if rng.random() < 0.5:
        return np.sin(2 * np.pi * 8 * (1 - np.exp(-12 * time))) * np.exp(-18 * time)
    return 0.5 * rng.standard_normal(len(time)) * np.exp(-rng.uniform(20, 90) * time)


def _add(sound: np.ndarray, part: np.ndarray, at: int) -> None:
    part = part[: len(sound) - at]
    sound[at : at + len(part)] += part


def tune(n_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return float32 music [n_samples], its peak at full scale."""
    sound = np.zeros(n_samples)
    beat_s = 60 / rng.uniform(60, 170)
    scale = _SCALES[rng.integers(len(_SCALES))]
    root = rng.uniform(45, 62)  # MIDI number, in tune with nothing
    lead, backing = _Instrument.draw(rng), _Instrument.draw(rng)
    chord_odds, bass_odds, drum_odds = rng.uniform(0, 0.8, 3) * (rng.random(3) < 0.6)
    drum = _drum(rng)
    degree, at_s = int(rng.integers(len(scale))), 0.0
    while at_s * SAMPLE_RATE < n_samples:
        at = int(at_s * SAMPLE_RATE)
        length_s = beat_s * float(rng.choice([0.25, 0.5, 0.5, 1, 1, 2, 3]))
        degree = (degree + int(rng.integers(-3, 4))) % (2 * len(scale))
        octave, step = divmod(degree, len(scale))
        notes = [(lead, root + 12 * octave + scale[step], length_s, 1.0)]
        if rng.random() < chord_odds:
            chord = (scale[(step + k) % len(scale)] for k in (0, 2, 4))
            notes += [(backing, root + tone, 2 * beat_s, 0.5) for tone in chord]
        if rng.random() < bass_odds:
            notes.append((backing, root - 12 + scale[step], beat_s, 0.9))
        if rng.random() < 0.12:
            notes = []  # a rest
        for instrument, pitch, seconds, level in notes:
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            _add(sound, level * instrument.note(hertz, seconds), at)
        if rng.random() < drum_odds:
            _add(sound, rng.uniform(0.5, 2) * drum, at)
        at_s += length_s
    return set_peak(sound.astype(np.float32), 0)
