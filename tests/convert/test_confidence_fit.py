"""Maps of confidence are fitted to words that were right or wrong."""

import numpy as np
import pytest

from convert.confidence_fit import (
    MIN_WORDS,
    WordOutcome,
    calibration_error,
    fit_confidence_map,
    word_outcomes,
)
from tests.held_out import held_out
from voxmlx import demo, load
from voxmlx.text.confidence_map import IDENTITY, read_confidence_map


def outcomes(n: int, seed: int) -> list[WordOutcome]:
    """Words that are right with the square of what they seem, at most 0.8."""
    rng = np.random.default_rng(seed)
    raws = rng.uniform(0, 1, n) ** 0.3
    rights = rng.uniform(0, 1, n) < 0.8 * raws**2
    return [WordOutcome(*pair) for pair in zip(raws.tolist(), rights.tolist())]  # noqa: B905


def test_a_fitted_map_is_right_about_other_words() -> None:
    fitted = fit_confidence_map(outcomes(2000, seed=1))
    others = outcomes(2000, seed=2)
    assert calibration_error(others) > 0.2
    assert calibration_error(others, fitted) < 0.05
    assert fitted(0.9) == pytest.approx(0.8 * 0.81, abs=0.08)
    assert fitted.n_words == 2000


@pytest.mark.parametrize("seed", range(5))
def test_a_fitted_map_never_falls_nor_is_certain(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = MIN_WORDS + 40 * seed
    raws = rng.choice([0.2, 0.99999, 1.0, *rng.uniform(0, 1, 20)], n)
    words = [WordOutcome(float(raw), bool(rng.integers(2))) for raw in raws]
    fitted = fit_confidence_map(words)
    values = [fitted(x) for x in np.linspace(0, 1, 200).tolist()]
    assert values == sorted(values)
    assert values[0] > 0
    assert values[-1] < 1
    sure = fit_confidence_map([WordOutcome(1.0, True)] * MIN_WORDS)
    assert sure(1.0) == 1.0 or sure(1.0) > 0.99


def test_few_words_fit_nothing() -> None:
    assert fit_confidence_map(outcomes(MIN_WORDS - 1, seed=0)) is IDENTITY


def test_the_error_is_that_of_ten_bins() -> None:
    words = [WordOutcome(0.95, right) for right in (True, True, False, False)]
    words += [WordOutcome(0.15, right) for right in (True, False, False, False)]
    assert calibration_error(words) == pytest.approx((0.45 + 0.1) / 2)
    assert calibration_error(words, lambda raw: 0.375) == pytest.approx(0)


def test_words_are_compared_with_what_was_said() -> None:
    checkpoint = load("demo", "float32")
    sentence = held_out("flite")[0]
    words = sentence.text.split()
    said = " ".join([*words[:-1], "nothing"])
    found = word_outcomes(checkpoint, sentence.samples, said, 480)
    assert [one.is_right for one in found] == [True] * (len(words) - 1) + [False]
    assert all(0 < one.raw <= 1 for one in found)


def test_the_demo_ships_a_map() -> None:
    mapped = read_confidence_map(demo.DIRECTORY)
    assert mapped.n_words >= MIN_WORDS
    assert load("demo").confidence_map == mapped


@pytest.mark.slow
def test_confidence_is_right_about_voices_that_the_demo_never_heard() -> None:
    checkpoint = load("demo", "float32")
    found = [
        one
        for kind in ("slt", "pico")
        for sentence in held_out(kind)
        for one in word_outcomes(checkpoint, sentence.samples, sentence.text, 480)
    ]
    assert calibration_error(found, checkpoint.confidence_map) <= 0.08
