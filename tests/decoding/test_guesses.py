"""Guesses at ids by themselves, without a network: what is guessed, and when it pays."""

import random
from collections.abc import Iterator

import pytest

from tests.held import held_bytes
from voxmlx.config import STREAMING_PAD_ID
from voxmlx.decoding.speculation import MAX_POSITIONS, Speculation


class Free(Speculation):
    """Guesses as usual, where a pass over many takes as long as one over one."""

    def __init__(self) -> None:
        super().__init__()
        super().passed(1, 1, 1.0)
        super().passed(MAX_POSITIONS, 1, 1.0)
        self.n_passes = self.n_guessed = self.n_accepted = 0

    def passed(self, n_positions: int, n_chosen: int, seconds: float | None) -> None:
        del seconds
        super().passed(n_positions, n_chosen, 1.0)


def test_what_repeats_is_foreseen() -> None:
    speculation = Free()
    phrase = [33, 1000, 1001, 32, 32, 32, 33, 1002, 32, 32]
    speculation.observe(phrase * 4 + phrase[:2])
    assert speculation.guess(7) == phrase[2:9]


def test_blanks_are_foreseen_in_silence() -> None:
    speculation = Free()
    speculation.observe([STREAMING_PAD_ID] * 40)
    assert speculation.guess(100) == [STREAMING_PAD_ID] * (MAX_POSITIONS - 1)


def test_nothing_is_guessed_before_a_single_step_was_timed() -> None:
    speculation = Speculation()
    speculation.observe([STREAMING_PAD_ID] * 40)
    assert speculation.guess(8) == []
    speculation.passed(1, 1, 0.01)
    assert speculation.guess(8) != []


@pytest.mark.parametrize(("share", "is_worth_it"), [(0.05, True), (1.0, False)])
def test_guesses_are_made_where_they_pay(share: float, is_worth_it: bool) -> None:
    speculation = Speculation()
    for n in range(1, MAX_POSITIONS + 1):
        speculation.passed(n, 1, 1 + share * (n - 1))
    speculation.observe([STREAMING_PAD_ID] * 40)
    assert bool(speculation.guess(15)) == is_worth_it


def test_one_slow_pass_is_forgotten() -> None:
    speculation = Speculation()
    speculation.observe([STREAMING_PAD_ID] * 40)
    speculation.passed(1, 1, 0.01)
    for n in range(2, MAX_POSITIONS + 1):
        speculation.passed(n, 1, 1.0)
    assert speculation.guess(15) == []
    for _ in range(300):
        speculation.passed(1, 1, 0.01)
    assert speculation.guess(15) != []


def test_what_is_remembered_does_not_grow() -> None:
    speculation = Speculation()
    rng = random.Random(0)
    speculation.observe(endless(rng))
    held = held_bytes(speculation)
    speculation.observe(endless(rng))
    # Contexts are as many as ever; some of them have more followers by now.
    assert held_bytes(speculation) < 1.05 * held


def test_followers_of_one_context_do_not_grow() -> None:
    speculation = Speculation()
    held: list[int] = []
    for first in (1000, 2000, 9000):
        for token_id in range(first, first + 1000):
            # After 33 and PADs comes each time an id that never came before.
            speculation.observe([33, *[STREAMING_PAD_ID] * 24, token_id])
        held.append(held_bytes(speculation))
    assert held[2] - held[1] < 10_000  # a thousand more followers are 100 kB


def endless(rng: random.Random) -> Iterator[int]:
    for _ in range(30_000):
        yield rng.choice([32, 33, rng.randint(1000, 9000)])


def test_the_longer_nothing_is_guessed_the_more_ids_pass_unread() -> None:
    speculation = Free()
    for _ in range(2):
        waits: list[int] = []
        for _ in range(6):
            assert speculation.guess(0) == []
            waits.append(speculation.n_unread)
        assert waits == [1, 2, 4, 8, 8, 8]
        assert speculation.guess(1) == [STREAMING_PAD_ID]
        assert speculation.n_unread == 1


def test_passes_and_ids_are_counted_with_and_without_their_time() -> None:
    speculation = Speculation()
    speculation.passed(1, 1, None)
    assert speculation.guess(4) == []
    speculation.passed(4, 3, 0.1)
    speculation.passed(3, 0, None)
    assert speculation.n_passes == 3
    assert speculation.n_guessed == 5
    assert speculation.n_accepted == 2


def test_guesses_end_where_they_are_unlikely_to_be_reached() -> None:
    # Of a new stream each PAD has a chance of 0.5, so the fifth has 0.03.
    assert Free().guess(15) == [STREAMING_PAD_ID] * 3
    assert Free().guess(2) == [STREAMING_PAD_ID] * 2


P, A, B, C, D = STREAMING_PAD_ID, 1000, 1001, 1002, 1003


@pytest.mark.parametrize(
    ("seen", "last"),
    [
        # Four ids, whatever came before them, against the last two.
        (
            [*([2000, A, B, A, B, C, 2001, A, B, A, B, C])]
            + [x for i in range(5) for x in (3000 + i, 4000 + i, A, B, D)],
            [2002, A, B, A, B],
        ),
        # Two ids of text and the PAD tokens since, against the last two ids.
        (
            [2000, A, B, P, C, 2001, A, B, P, C]
            + [x for i in range(5) for x in (3000 + i, B, P, D)],
            [2002, A, B, P],
        ),
        # The last two ids, against the PAD tokens alone.
        (
            [2000, B, P, C, 2001, B, P, C]
            + [x for i in range(5) for x in (3000 + i, 4000 + i, P, D)],
            [2002, B, P],
        ),
        # The PAD tokens alone, against what comes most often.
        (
            [x for i in range(5) for x in (3000 + i, 4000 + i, P, C)] + [D] * 9,
            [2001, 2002, P],
        ),
    ],
)
def test_the_longest_context_that_was_seen_twice_decides(
    seen: list[int], last: list[int]
) -> None:
    speculation = Free()
    speculation.observe(seen + last)
    assert speculation.guess(1) == [C]


def test_what_was_seen_once_is_not_foreseen() -> None:
    speculation = Free()
    speculation.observe([A])
    assert speculation.guess(1) == [STREAMING_PAD_ID]


@pytest.mark.parametrize(("n_followers", "is_worth_it"), [(6, True), (9, False)])
def test_a_position_that_was_never_timed_is_believed_to_cost_2_percent(
    n_followers: int, is_worth_it: bool
) -> None:
    speculation = Speculation()
    speculation.passed(1, 1, 1.0)
    for i in range(n_followers):
        speculation.observe([2000 + i, A, B, 3000 + i])
    speculation.observe([4000, A, B])
    assert speculation.guess(1) == ([3000] if is_worth_it else [])


def test_a_fixed_n_guesses_is_kept_without_any_timing() -> None:
    speculation = Speculation(n_guesses=3)
    speculation.observe([P] * 40)
    assert speculation.guess(10) == [P] * 3
    assert speculation.guess(2) == [P] * 2
    assert speculation.now() is None
    assert Speculation(lambda: 2.5).now() == 2.5


def timed(*passes: tuple[int, float]) -> Speculation:
    """A stream of PAD tokens, of which so many positions took so long."""
    speculation = Speculation()
    speculation.observe([P] * 40)
    for n_positions, seconds in passes:
        speculation.passed(n_positions, 1, seconds)
    return speculation


def test_the_quickest_of_the_last_four_passes_counts() -> None:
    slow, quick = (16, 100.0), (16, 1.0)
    assert len(timed((1, 1.0), quick, *[slow] * 3).guess(15)) == 15
    assert len(timed((1, 1.0), quick, *[slow] * 4).guess(15)) == 11


def test_a_length_that_was_not_tried_for_256_passes_is_tried_again() -> None:
    begin = [(1, 1.0), (16, 100.0)]
    assert len(timed(*begin, *[(1, 1.0)] * 256).guess(15)) == 11
    assert len(timed(*begin, *[(1, 1.0)] * 257).guess(15)) == 15
    # The pass over one position is what all others are compared with.
    assert len(timed((1, 1.0), *[(4, 1.0)] * 300).guess(15)) == 15
