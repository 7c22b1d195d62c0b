"""Hot words bring back words the demo model misses, and leave the others alone."""

import sys
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest

from benchmarks.hotwords import HotwordCase, HotwordRow, cases, heard, in_noise, measure
from tests.held_out import KINDS, held_out
from voxmlx import Checkpoint, load
from voxmlx.decoding.hotwords import BOOST

# White noise in which the model misses a word in every third sentence.
NOISE = 0.02
N_LISTED = 5

# Every third sentence, and in the slow tests all of them.
SHARES = [3, pytest.param(1, marks=pytest.mark.slow)]


@cache
def demo_model() -> Checkpoint:
    return load("demo", "float32")


@cache
def in_noise_without_hotwords(
    every: int,
) -> tuple[list[tuple[np.ndarray, str]], list[tuple[str, ...]]]:
    """Sentences by which no boost or limit was chosen, and what is heard of them."""
    sentences = [sentence for kind in KINDS for sentence in held_out(kind)][::every]
    spoken = [(in_noise(s.samples, NOISE, i), s.text) for i, s in enumerate(sentences)]
    sounds = [samples for samples, _ in spoken]
    return spoken, heard(demo_model(), sounds, [()] * len(sounds))


def some_cases(
    every: int, n_listed: int, wanted: Callable[[HotwordCase], bool]
) -> list[HotwordCase]:
    return list(filter(wanted, cases(*in_noise_without_hotwords(every), n_listed)))


def reported(
    capsys: pytest.CaptureFixture[str], some: Sequence[HotwordCase]
) -> HotwordRow:
    row = measure(demo_model(), some, 480, BOOST)
    with capsys.disabled():
        sys.stdout.write(f"\n{row}\n")
    return row


@pytest.mark.parametrize("every", SHARES)
@pytest.mark.parametrize(
    "n_listed", [pytest.param(1, marks=pytest.mark.slow), N_LISTED]
)
def test_missed_words_are_found_and_no_word_heard_rightly_is_lost(
    n_listed: int, every: int, capsys: pytest.CaptureFixture[str]
) -> None:
    missed = some_cases(every, n_listed, lambda case: case.missed is not None)
    row = reported(capsys, missed)
    assert row.n_missed > 20 / every
    assert row.n_found >= 4 / every
    assert row.n_lost == 0


@pytest.mark.slow
@pytest.mark.parametrize("every", SHARES)
def test_sentences_without_a_hot_word_stay_as_they_are(
    every: int, capsys: pytest.CaptureFixture[str]
) -> None:
    row = reported(capsys, some_cases(every, N_LISTED, lambda case: not case.is_listed))
    assert row.n_unlisted > 40 / every
    assert row.n_disturbed == 0


@pytest.mark.slow
@pytest.mark.parametrize("every", [1])
def test_nine_is_not_heard_in_ninth_or_ninety(every: int) -> None:
    begins = {"ninth", "ninety", "nineteen", "nineteenth"}
    spoken, plain = in_noise_without_hotwords(every)
    chosen = [
        (samples, words)
        for (samples, text), words in zip(spoken, plain, strict=True)
        if begins & set(text.split()) and "nine" not in text.split()
    ]
    assert len(chosen) >= 5 / every
    lists = [("nine",)] * len(chosen)
    sounds = [samples for samples, _ in chosen]
    # So much that every hesitation is decided by it.
    assert heard(demo_model(), sounds, lists, boost=4.0) == [w for _, w in chosen]
