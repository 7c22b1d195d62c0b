"""Make the demo's calibration sound: python -m training.calibration FOLDER.

It has nothing in common with the test sentences but the words. Voices: variants of
espeak-ng that speak no test sentence. Grammar: words in a row, drawn so that no two of
them follow each other in any test sentence. So no part of a test sentence longer than
a word occurs in it. `tests/demo/test_calibration.py` checks both.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import soundfile

from tests.held_out import held_out
from training.domain import vocabulary
from training.espeak import Espeak

__all__ = ["main"]

_RATE = 16_000
_SECONDS = 22  # of sound, per voice
_LANGUAGES = ("en-us", "en-gb-x-rp", "en-us-nyc", "en-029")
_VARIANTS = (
    "f2",
    "f4",
    "m2",
    "m4",
    "m7",
    "m8",
    "Alicia",
    "Annie",
    "caleb",
    "edward",
    "Gene",
    "Marco",
    "max",
    "robert",
)


def main() -> None:
    """Write a sound per voice, and words.json that says what each of them says."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20261126)
    espeak = Espeak()
    taken = {pair for sentence in held_out() for pair in _pairs(sentence.text.split())}
    said: dict[str, dict[str, object]] = {}
    for i, variant in enumerate(_VARIANTS):
        voice = f"{_LANGUAGES[i % len(_LANGUAGES)]}+{variant}"
        sound, words = _recording(espeak, voice, taken, rng)
        name = f"{variant.lower()}.ogg"
        soundfile.write(folder / name, sound, _RATE, compression_level=0.7)
        said[name] = {"voice": f"espeak-{voice}", "words": words}
    text = json.dumps(said, indent=1)
    (folder / "words.json").write_text(text + "\n", encoding="utf-8")


def _recording(
    espeak: Espeak, voice: str, taken: set[tuple[str, str]], rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    parts: list[np.ndarray] = []
    phrases: list[str] = []
    while sum(len(part) for part in parts) < _SECONDS * _RATE:
        words = _phrase(taken, rng)
        speech = espeak.speak(words, voice, rng)
        assert speech is not None, f"espeak-ng cannot say {words} with {voice}"
        level = rng.uniform(0.25, 0.8) / np.abs(speech.samples).max()
        pause = np.zeros(int(rng.uniform(0.2, 1.2) * _RATE), np.float32)
        parts += [speech.samples * np.float32(level), pause]
        phrases.append(" ".join(words))
    sound = np.concatenate(parts)
    if rng.random() < 0.5:
        noise = rng.standard_normal(len(sound), np.float32)
        sound = sound + noise * np.float32(10 ** rng.uniform(-3.2, -2))
    return sound, phrases


def _phrase(taken: set[tuple[str, str]], rng: np.random.Generator) -> list[str]:
    words = list(vocabulary())
    phrase: list[str] = []
    n_words = rng.integers(3, 8)
    while len(phrase) < n_words:
        word = words[rng.integers(len(words))]
        if not phrase or (phrase[-1], word) not in taken:
            phrase.append(word)
    return phrase


def _pairs(words: list[str]) -> set[tuple[str, str]]:
    return set(itertools.pairwise(words))


if __name__ == "__main__":
    main()
