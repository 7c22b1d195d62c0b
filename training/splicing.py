"""Words that one voice said alone, in a row with pauses."""

import math

import numpy as np

from training.augment import change_speed
from training.dataset import Dataset, Utterance
from training.domain import DIGITS
from training.synthesis import SAMPLE_RATE

_DIGITS_ODDS = 0.8
_MOST_WORDS = 8
_LONGEST_PAUSES_S = (0.08, 0.35, 0.7)
GATED_ODDS = 0.6
_GATE_DB = (-38.0, -12.0)
_GATE_FRAME = 80  # samples: 5 ms

__all__ = ["Splicer", "gate"]


class Splicer:
    """Makes utterances of a data set's one-word utterances, voice by voice."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        # Each voice's utterances of one word, and those of them that are digits.
        by_voice: dict[str, tuple[list[int], list[int]]] = {}
        for index in dataset.single_word_indices:
            any_words, digits = by_voice.setdefault(dataset.voice(index), ([], []))
            any_words.append(index)
            if dataset.words(index)[0] in DIGITS:
                digits.append(index)
        self._voices = list(by_voice.items())

    def __bool__(self) -> bool:
        """Whether there is any word to splice."""
        return bool(self._voices)

    def splice(self, rng: np.random.Generator) -> Utterance:
        """Return one to eight words, cut tightly, with pauses up to 0.7 s."""
        voice, (any_words, digits) = self._voices[rng.integers(len(self._voices))]
        is_digits = len(digits) > 2 and rng.random() < _DIGITS_ODDS
        longest_pause_s = rng.choice(_LONGEST_PAUSES_S)
        n_words = int(rng.integers(1, _MOST_WORDS + 1))
        parts: list[np.ndarray] = []
        words: list[str] = []
        ends: list[int] = []
        position = 0
        for index in rng.choice(digits if is_digits else any_words, n_words):
            item = self._dataset[int(index)]
            sound, end = _cut(item, rng)
            pause = int(rng.uniform(0, longest_pause_s) * SAMPLE_RATE)
            parts += [sound, np.zeros(pause, np.float32)]
            words.append(item.words[0])
            ends.append(position + end)
            position += len(sound) + pause
        return Utterance(np.concatenate(parts), tuple(words), tuple(ends), voice)


def _cut(item: Utterance, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Return a word with other edges, speed and level, and where it ends.

    A recording may be cut more tightly than a synthesiser leaves its sound.
    """
    speed = math.exp(rng.uniform(-0.08, 0.08))
    sound = change_speed(item.samples, speed)
    end = min(int(item.word_ends[0] / speed), len(sound))
    first, last = int(rng.uniform(0, 480)), end + int(rng.uniform(0, 800))
    if rng.random() < GATED_ODDS:
        first, end = gate(sound[:end], rng.uniform(*_GATE_DB))
        last = end
    level = np.float32(10 ** (rng.uniform(-5, 0) / 20))
    return sound[first:last] * level, max(end - first, 1)


def gate(sound: np.ndarray, threshold_db: float) -> tuple[int, int]:
    """Return where sound first and last is within `threshold_db` of its loudest.

    So a gate cuts words: the s of "six" and the th of "three" may be lost.
    """
    n_frames = len(sound) // _GATE_FRAME
    frames = sound[: n_frames * _GATE_FRAME].reshape(n_frames, _GATE_FRAME)
    power = np.square(frames).mean(1)
    is_open = power >= power.max(initial=0) * 10 ** (threshold_db / 10)
    at = np.flatnonzero(is_open)
    if not len(at):
        return 0, len(sound)
    return int(at[0]) * _GATE_FRAME, (int(at[-1]) + 1) * _GATE_FRAME
