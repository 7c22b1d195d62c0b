"""What the synthesisers share: resampling, trimming, word ends, voices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import soxr

from training.dataset import Utterance

SAMPLE_RATE = 16_000
SAMPLES_PER_10_MS = 160

__all__ = [
    "SAMPLE_RATE",
    "Speech",
    "Synthesiser",
    "draw_throat",
    "finish",
    "refine_ends",
    "resample",
]


@dataclass(frozen=True, slots=True)
class Speech:
    """Samples at 16 kHz and the sample at which each word ends."""

    samples: np.ndarray  # float32
    word_ends: list[int]


class Synthesiser(Protocol):
    """One engine with several voices; draws rate and pitch by itself."""

    name: str
    voices: Sequence[str]

    def speak(
        self, words: Sequence[str], voice: str, rng: np.random.Generator
    ) -> Speech | None:
        """The words spoken, or None where engine and words do not agree."""
        ...


def draw_throat(rng: np.random.Generator) -> float:
    """By how much to raise a voice's formants, most of which are men's.

    An engine speaks slower and lower by this, and its sound is played faster: so the
    tempo and the pitch stay as they were meant, and only the formants move.
    """
    return math.exp(rng.uniform(-0.1, 0.2))


def resample(samples: np.ndarray, rate: float) -> np.ndarray:
    """Mono sound of any rate -> float32 at 16 kHz."""
    if rate == SAMPLE_RATE:
        return samples.astype(np.float32)
    return soxr.resample(samples.astype(np.float32), rate, SAMPLE_RATE)


def _energy(samples: np.ndarray) -> np.ndarray:
    """Root mean square of every 10 ms."""
    n_mel_frames = len(samples) // SAMPLES_PER_10_MS
    pieces = samples[: n_mel_frames * SAMPLES_PER_10_MS].reshape(n_mel_frames, -1)
    return np.sqrt((pieces**2).mean(1) + 1e-9)


def refine_ends(samples: np.ndarray, spans: Sequence[tuple[float, float]]) -> list[int]:
    """Move each word's end back to where the energy within its span dies away."""
    energy = _energy(samples)
    threshold = max(float(energy.max()) * 0.02, 1e-4)
    ends = []
    for start, end in spans:
        first = int(start // SAMPLES_PER_10_MS)
        last = min(int(np.ceil(end / SAMPLES_PER_10_MS)), len(energy))
        loud = np.nonzero(energy[first:last] > threshold)[0]
        heard = (first + int(loud[-1]) + 1) * SAMPLES_PER_10_MS if len(loud) else end
        ends.append(int(heard))
    return ends


def finish(speech: Speech, words: Sequence[str], voice: str) -> Utterance | None:
    """Trim silence to 30 and 50 ms, scale the peak to 0.5, check the ends."""
    loud = np.nonzero(np.abs(speech.samples) > 0.01)[0]
    if not len(loud) or sorted(speech.word_ends) != speech.word_ends:
        return None
    first = max(0, int(loud[0]) - 480)
    last = max(int(loud[-1]) + 800, *speech.word_ends)
    samples = speech.samples[first:last]
    samples = samples * np.float32(0.5 / max(float(np.abs(samples).max()), 1e-3))
    ends = tuple(end - first for end in speech.word_ends)
    return Utterance(samples, tuple(words), ends, voice)
