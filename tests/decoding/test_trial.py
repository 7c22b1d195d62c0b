"""The states of a trial: which transition follows which id."""

from math import log
from types import SimpleNamespace
from typing import Any, cast

import mlx.core as mx
import pytest

from tests.scripted import PAD, WORD, vocabulary
from voxmlx.decoding.decoded import Decoded
from voxmlx.decoding.hotwords import HotwordMatch, HotwordTrie
from voxmlx.decoding.trial import (
    MAX_HELD,
    REST_TOKENS,
    GuardTrial,
    HotwordTrial,
    Position,
    TrialState,
)

WORDS = vocabulary(" vox", "tral", " fox", "trail", " is", " it")
VOX, TRAL, FOX, TRAIL, IS, IT = (
    i
    for text in (" vox", "tral", " fox", "trail", " is", " it")
    for i in WORDS.encode(text)
)
SOUND = Position(mx.zeros((1, 1, 1)), is_speech=True)


def opened() -> tuple[HotwordTrial, HotwordMatch]:
    """A trial of "Voxtral" in place of "fox", and the match that goes on."""
    match = HotwordMatch(HotwordTrie(WORDS, ["Voxtral"]))
    match.observe(WORD, 0.0)
    decoder = cast("Any", SimpleNamespace(arrays=list))
    trial = HotwordTrial(Decoded(FOX), True, decoder, [], match.copy(), [Decoded(VOX)])
    match.observe(VOX, 1.5)
    trial.observe(match)
    return trial, match


def hear(trial: HotwordTrial, match: HotwordMatch, *ids: int) -> list[TrialState]:
    states: list[TrialState] = []
    for token_id in ids:
        trial.hold(Decoded(token_id), SOUND)
        match.observe(token_id, 0.0)
        trial.observe(match)
        states.append(trial.state)
    return states


def test_the_example_of_the_module_takes_its_course() -> None:
    trial, match = opened()
    assert trial.state is TrialState.OPEN
    assert hear(trial, match, TRAL, PAD) == [TrialState.OPEN, TrialState.COMPLETE]
    assert trial.n_phrase == 2
    rest = [PAD, WORD, IS, *[PAD] * (REST_TOKENS - 4)]
    for token_id in rest:
        assert not trial.is_due
        hear(trial, match, token_id)
    assert trial.is_due
    assert len(trial.ids) == 14
    assert len(trial.positions) == 13
    trial.compare([TRAIL, PAD, *rest])
    assert trial.state is TrialState.CONFIRMED
    assert trial.is_over


def test_a_trial_that_changes_another_word_is_rolled_back() -> None:
    trial, match = opened()
    hear(trial, match, TRAL, PAD, WORD, IT, *[PAD] * 9)
    assert trial.is_due
    trial.compare([TRAIL, PAD, WORD, IS, *[PAD] * 9])
    assert trial.state is TrialState.ROLLED_BACK


def test_a_phrase_that_breaks_is_rolled_back_at_once() -> None:
    trial, match = opened()
    assert hear(trial, match, TRAIL) == [TrialState.ROLLED_BACK]


def test_a_stream_that_ends_rolls_an_open_trial_back() -> None:
    trial, _ = opened()
    trial.end()
    assert trial.state is TrialState.ROLLED_BACK


def test_an_open_trial_holds_no_more_than_its_bound() -> None:
    trial, _ = opened()
    match = cast("Any", SimpleNamespace(is_complete=False, is_broken=False))
    states = hear_each(trial, match, MAX_HELD)
    assert states[:-1] == [TrialState.OPEN] * (MAX_HELD - 1)
    assert states[-1] is TrialState.ROLLED_BACK


def hear_each(trial: HotwordTrial, match: Any, n: int) -> list[TrialState]:
    states: list[TrialState] = []
    for _ in range(n):
        trial.hold(Decoded(PAD), SOUND)
        trial.observe(match)
        states.append(trial.state)
    return states


@pytest.mark.parametrize(
    ("first", "then", "probability", "expected"),
    [
        (WORD, FOX, 0.9, TrialState.CONFIRMED),
        (WORD, FOX, 0.5, TrialState.CONFIRMED),
        (WORD, FOX, 0.49, TrialState.ROLLED_BACK),
        (WORD, PAD, 0.9, TrialState.ROLLED_BACK),
        (WORD, WORD, 0.9, TrialState.ROLLED_BACK),
    ],
)
def test_a_guards_word_stands_only_before_probable_text(
    first: int, then: int, probability: float, expected: TrialState
) -> None:
    trial = guards(first)
    assert trial.state is TrialState.OPEN
    trial.observe(Decoded(then, log(probability)))
    assert trial.state is expected


def test_a_guard_that_brings_out_no_word_is_rolled_back_at_once() -> None:
    assert guards(FOX).state is TrialState.ROLLED_BACK


def guards(first: int) -> GuardTrial:
    return GuardTrial(
        Decoded(PAD),
        True,
        cast("Any", None),
        [],
        None,
        [Decoded(first)],
        min_confidence=0.5,
    )
