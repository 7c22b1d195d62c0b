"""Guesses come true where ids repeat, pay for themselves, and change no id."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract import cut, said_together
from tests.decoding.test_guesses import Free
from tests.sounds import speech_like
from voxmlx import Checkpoint, Event, Session, TokenDecoded, WordFinal, demo, load
from voxmlx.batch import Batch
from voxmlx.config import LEGAL_DELAYS_MS
from voxmlx.decoding.speculation import MAX_POSITIONS, Speculation
from voxmlx.errors import SessionError

SAMPLE, _ = soundfile.read(demo.SAMPLE, dtype="float32")
SHORT = SAMPLE[:120_000]
# The tiny rings wrap every 32 ids, the encoder's every 16 frames.
SOUND = speech_like(160_000)


class Scripted(Speculation):
    """Guesses that a test makes up, knowing how many ids there were."""

    def __init__(self, guess: Callable[[int], list[int]]) -> None:
        super().__init__()
        self._guess_from = guess
        self._n_heard = 0

    def guess(self, n: int) -> list[int]:
        return self._guess_from(self._n_heard)[:n]

    def observe(self, ids: Iterable[int]) -> None:
        self._n_heard += len(list(ids))


def heard(
    checkpoint: Checkpoint,
    sound: np.ndarray,
    speculation: Speculation | None = None,
    **options: Any,
) -> list[Event]:
    session = Session(checkpoint, speculate=speculation or False, **options)
    return session.push(sound) + session.finish()


def ids(events: Sequence[Event]) -> list[int]:
    return [e.token_id for e in events if isinstance(e, TokenDecoded)]


@pytest.fixture(scope="module")
def demo_checkpoint() -> Checkpoint:
    return load(demo.NAME, "float32")


# Shortest, usual, long, and the one that stands apart; the others take a minute more.
QUICK_DELAYS_MS = (80, 480, 1200, 2400)
EVERY_DELAY = [
    pytest.param(ms, marks=() if ms in QUICK_DELAYS_MS else pytest.mark.slow)
    for ms in LEGAL_DELAYS_MS
]


@pytest.mark.parametrize("delay_ms", EVERY_DELAY)
def test_the_demo_hears_the_same_at_every_delay(
    demo_checkpoint: Checkpoint, delay_ms: int
) -> None:
    plain = heard(demo_checkpoint, SAMPLE, delay_ms=delay_ms)
    speculation = Free()
    assert heard(demo_checkpoint, SAMPLE, speculation, delay_ms=delay_ms) == plain
    assert speculation.n_accepted > 0.3 * len(ids(plain))


@pytest.mark.parametrize("delay_ms", LEGAL_DELAYS_MS)
def test_rings_that_wrap_change_nothing(
    tiny_checkpoint: Checkpoint, delay_ms: int
) -> None:
    plain = heard(tiny_checkpoint, SOUND, delay_ms=delay_ms)
    assert heard(tiny_checkpoint, SOUND, Free(), delay_ms=delay_ms) == plain


@pytest.fixture(scope="module")
def five_seconds(tiny_checkpoint: Checkpoint) -> list[Event]:
    return heard(tiny_checkpoint, SOUND[:80_000])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_wrong_guesses_are_taken_back(
    tiny_checkpoint: Checkpoint, five_seconds: list[Event], seed: int, share: float
) -> None:
    right = ids(five_seconds)
    rng = random.Random(seed)

    def guess(n_heard: int) -> list[int]:
        """The ids to come, of which only a share is right."""
        coming = right[n_heard:][: rng.randint(0, MAX_POSITIONS - 1)]
        return [t if rng.random() < share else rng.randint(0, 1400) for t in coming]

    speculation = Scripted(guess)
    assert heard(tiny_checkpoint, SOUND[:80_000], speculation) == five_seconds


def test_8_bit_rings_change_nothing(demo_checkpoint: Checkpoint) -> None:
    plain = heard(demo_checkpoint, SHORT, kv_bits=8)
    assert heard(demo_checkpoint, SHORT, Free(), kv_bits=8) == plain


def test_probabilities_are_those_of_single_steps(demo_checkpoint: Checkpoint) -> None:
    plain = heard(demo_checkpoint, SHORT, alternatives=3)
    events = heard(demo_checkpoint, SHORT, Free(), alternatives=3)
    assert len(events) == len(plain)
    for event, expected in zip(events, plain, strict=True):
        match event, expected:
            case TokenDecoded(logprob=a), TokenDecoded(logprob=b):
                assert event.token_id == expected.token_id
                assert a == pytest.approx(b, abs=1e-4)
                assert [x.token_id for x in event.alternatives] == [
                    x.token_id for x in expected.alternatives
                ]
            case WordFinal(word), WordFinal(other):
                assert word.text == other.text
                assert word.confidence == pytest.approx(other.confidence, abs=1e-4)
            case _:
                assert event == expected


@pytest.mark.parametrize("options", [{"guards": ["pad_run"]}, {"hotwords": ["lamp"]}])
def test_guards_and_hot_words_stay_what_they_are(
    demo_checkpoint: Checkpoint, options: dict[str, Any]
) -> None:
    plain = heard(demo_checkpoint, SHORT, **options)
    assert heard(demo_checkpoint, SHORT, Free(), **options) == plain


def test_pieces_of_any_size_change_nothing(demo_checkpoint: Checkpoint) -> None:
    session = Session(demo_checkpoint, speculate=Free())
    events: list[Event] = []
    for piece in cut(SHORT, [1280 * 3, 1, 40_000, 777, 50_000]):
        events += session.push(piece)
    assert events + session.finish() == heard(demo_checkpoint, SHORT)


def test_sessions_in_a_batch_speculate_too(demo_checkpoint: Checkpoint) -> None:
    sounds = [SHORT, SAMPLE[40_000:200_000], SAMPLE[::-1][:120_000]]
    alone = [heard(demo_checkpoint, sound) for sound in sounds]
    sessions = [
        Session(demo_checkpoint, speculate=Free() if i < 2 else False) for i in range(3)
    ]
    heard_by = dict(zip(sessions, sounds, strict=True))
    said = said_together(Batch(demo_checkpoint.model), heard_by)
    assert list(said.values()) == alone


def test_a_fixed_n_guesses_makes_a_run_that_repeats_exactly(
    demo_checkpoint: Checkpoint,
) -> None:
    expected = ids(heard(demo_checkpoint, SHORT))
    counts: list[tuple[int, int, int]] = []
    fixed = Speculation(n_guesses=3)
    for _ in range(2):
        fixed = Speculation(n_guesses=3)
        session = Session(demo_checkpoint, speculate=fixed)
        assert ids(session.push(SHORT) + session.finish()) == expected
        counts.append((fixed.n_passes, fixed.n_guessed, fixed.n_accepted))
    assert counts[0] == counts[1]
    assert 0 < fixed.n_accepted < fixed.n_guessed
    assert fixed.guess(10) == fixed.guess(3)
    assert len(fixed.guess(10)) == 3
    assert len(fixed.guess(2)) == 2


def test_only_the_clock_that_is_handed_in_is_read(demo_checkpoint: Checkpoint) -> None:
    def run(seconds: float) -> tuple[int, int]:
        ticks = iter(range(1_000_000))
        speculation = Speculation(lambda: seconds * next(ticks))
        session = Session(demo_checkpoint, speculate=speculation)
        session.push(SHORT)
        assert next(ticks) > 10
        return speculation.n_passes, speculation.n_guessed

    assert run(0.01) == run(0.01)


@pytest.mark.parametrize("length", [0, -1, MAX_POSITIONS])
def test_a_n_guesses_that_no_pass_has_is_refused(length: int) -> None:
    with pytest.raises(SessionError, match=str(length)):
        Speculation(n_guesses=length)
