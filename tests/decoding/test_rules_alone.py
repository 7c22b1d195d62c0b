"""Guards by themselves, without a network: what they watch and what they add."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scripted import PAD, WORD
from voxmlx.decoding.rules import (
    GUARDS,
    DecodeRule,
    PadRunGuard,
    RepetitionGuard,
    make_guards,
)

A, BACK = 1000, 1002


def test_pauses_between_speech_add_up_to_no_rut() -> None:
    rule = PadRunGuard()
    for i in range(3000):
        is_speech = i % 100 < 5
        assert not rule.bias(is_speech) or i > 200 * 20
        rule.observe(PAD, is_speech)
    rule.observe(WORD, True)
    assert rule.idle_tokens() == 201


def test_a_word_said_again_and_again_is_no_loop() -> None:
    rule = RepetitionGuard()
    for _ in range(100):
        for token_id in (WORD, A, PAD):
            assert rule.bias(True) == {}
            rule.observe(token_id, True)


@given(
    st.sampled_from([PadRunGuard, RepetitionGuard]),
    st.lists(
        st.tuples(
            st.sampled_from([[PAD], [WORD, A], [A, BACK, 1001], [A], [BACK]]),
            st.integers(1, 120),
            st.booleans(),
        ),
        max_size=8,
    ),
)
@settings(max_examples=60, deadline=None)
def test_an_idle_rule_has_no_bias_for_as_long_as_it_says(
    kind: type[PadRunGuard | RepetitionGuard],
    stretches: list[tuple[list[int], int, bool]],
) -> None:
    rule: DecodeRule = kind()
    idle_until = 0
    stream = [(i, s) for ids, n, s in stretches for _ in range(n) for i in ids]
    for index, (token_id, is_speech) in enumerate(stream):
        idle_until = max(idle_until, index + rule.idle_tokens())
        assert index >= idle_until or rule.bias(True) == {}
        twin = rule.copy()
        rule.observe(token_id, is_speech)
        twin.observe(token_id, is_speech)
        assert twin.bias(True) == rule.bias(True)


def after_pads(n: int) -> PadRunGuard:
    rule = PadRunGuard()
    for _ in range(n):
        rule.observe(PAD, True)
    return rule


def test_pads_in_speech_are_left_alone_until_there_are_201() -> None:
    rule = PadRunGuard()
    for n in range(201):
        assert rule.idle_tokens() == 201 - n
        assert rule.bias(True) == {}
        rule.observe(PAD, True)
    assert rule.idle_tokens() == 0
    assert rule.bias(True) == {PAD: -0.5}
    assert rule.bias(False) == {}
    rule.observe(PAD, True)
    assert rule.bias(True) == {PAD: -1.0}


@pytest.mark.parametrize("n", [214, 220, 1000])
def test_the_penalty_of_pads_stops_growing_at_7(n: int) -> None:
    assert after_pads(n).bias(True) == {PAD: -7.0}


def test_pads_in_silence_do_not_count() -> None:
    rule = after_pads(100)
    for _ in range(500):
        rule.observe(PAD, False)
    assert rule.idle_tokens() == 101


def test_a_refused_guard_waits_twice_as_long_each_time_up_to_24_tokens() -> None:
    rule = after_pads(220)
    for wait in (3, 6, 12, 24, 24):
        rule.refused()
        for n in range(wait):
            assert rule.idle_tokens() == wait - n
            assert rule.bias(True) == {}
            rule.observe(PAD, True)
        assert rule.bias(True) == {PAD: -7.0}
    rule.observe(WORD, True)
    assert rule.idle_tokens() == 201
    for _ in range(220):
        rule.observe(PAD, True)
    rule.refused()
    assert rule.idle_tokens() == 3


@pytest.mark.parametrize("period", range(1, 17))
def test_a_loop_is_penalized_after_32_repeated_ids_or_three_periods(
    period: int,
) -> None:
    rule = RepetitionGuard()
    assert rule.idle_tokens() == 32
    n = period + max(32, 3 * period)
    for k in range(n):
        assert rule.bias(True) == {}
        rule.observe(A + k % period, True)
    assert rule.idle_tokens() == 0
    assert rule.bias(True) == {A + n % period: -2.0}
    assert rule.bias(False) == {A + n % period: -2.0}
    rule.observe(A + n % period, True)
    assert rule.bias(True) == {A + (n + 1) % period: -4.0}


def test_a_loop_of_17_ids_is_left_alone() -> None:
    rule = RepetitionGuard()
    for k in range(500):
        assert rule.bias(True) == {}
        rule.observe(A + k % 17, True)


def test_the_penalty_of_a_loop_stops_growing_at_20() -> None:
    rule = RepetitionGuard()
    for k in range(1, 80):
        assert rule.idle_tokens() == max(0, 33 - max(k - 1, 1))
        rule.observe(A, True)
        assert rule.bias(True) == ({A: -min(20.0, 2.0 * (k - 32))} if k > 32 else {})


@pytest.mark.parametrize("breaker", [PAD, 5000])
def test_another_id_ends_a_loop(breaker: int) -> None:
    rule = RepetitionGuard()
    for _ in range(40):
        rule.observe(A, True)
    twin = rule.copy()
    rule.observe(breaker, True)
    assert rule.bias(True) == {}
    assert rule.idle_tokens() == 32
    assert twin.bias(True) == {A: -16.0}


def test_guards_are_made_in_order_each_once_and_new() -> None:
    names = ["repetition", "pad_run", "repetition"]
    guards = make_guards(names)
    assert [guard.name for guard in guards] == ["repetition", "pad_run"]
    assert not set(map(id, guards)) & set(map(id, make_guards(names)))
    assert make_guards([]) == []
    assert list(GUARDS) == ["pad_run", "repetition"]


def test_an_unknown_guard_is_named_with_those_that_exist() -> None:
    message = "^guard 'rut' is unknown; use pad_run, repetition$"
    with pytest.raises(ValueError, match=message):
        make_guards(["pad_run", "rut"])


def test_an_old_name_makes_the_renamed_guard_and_warns() -> None:
    message = "^the guard 'blank_rut' is called 'pad_run' now$"
    with pytest.warns(DeprecationWarning, match=message):
        (guard,) = make_guards(["blank_rut", "pad_run"])
    assert isinstance(guard, PadRunGuard)
