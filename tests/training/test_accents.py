"""Every language that says English digits says all ten of them."""

import ctypes

import numpy as np
import pytest

pytest.importorskip("soxr", reason="training needs soxr: .[training]")

from training.accents import SPELLINGS, Accented
from training.domain import DIGITS


def has_espeak() -> bool:
    try:
        ctypes.CDLL("libespeak-ng.so.1")
    except OSError:
        return False
    return True


def test_each_language_spells_ten_digits() -> None:
    for language, spellings in SPELLINGS.items():
        assert len(spellings.split()) == len(DIGITS), language


@pytest.mark.skipif(not has_espeak(), reason="needs libespeak-ng")
def test_a_digit_is_spoken_in_another_language_and_a_sentence_is_not() -> None:
    rng = np.random.default_rng(0)
    voices = Accented()
    for language in SPELLINGS:
        speech = voices.speak(["seven"], f"{language}+m3", rng)
        assert speech is not None
        assert 0.1 < speech.word_ends[0] / 16_000 < 1.5
    assert voices.speak(["seven", "up"], "de+m3", rng) is None
    assert voices.speak(["water"], "de+m3", rng) is None
