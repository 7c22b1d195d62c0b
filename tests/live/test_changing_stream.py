"""A change of delay, asked for at any moment, loses and doubles no word."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.live.spoken_numbers import NumberSession, as_session, spoken
from voxmlx import demo
from voxmlx.checkpoint import Checkpoint, load
from voxmlx.errors import DelayError, SessionError
from voxmlx.events import (
    DraftChanged,
    Event,
    Finished,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    WordFinal,
)
from voxmlx.live.changing_stream import ChangingStream
from voxmlx.session import Session

RATE = 16_000
SAID = (demo.DIRECTORY / "sample.txt").read_text("utf-8").split()
SHORT = SAID[:14]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("demo", "float32")


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """The sample, with a second of silence at its end."""
    samples = soundfile.read(demo.SAMPLE, dtype="float32")[0]
    return np.concatenate([samples, np.zeros(RATE, np.float32)])


@pytest.fixture(scope="module")
def short(sound: np.ndarray) -> np.ndarray:
    """What is SHORT: three utterances, and a second of silence."""
    return np.concatenate([sound[: int(6.9 * RATE)], np.zeros(RATE, np.float32)])


def opened(checkpoint: Checkpoint, delay_ms: int = 480) -> ChangingStream:
    options = {"speculate": True, "silence_block": 8}
    return ChangingStream(
        Session(checkpoint, delay_ms=delay_ms, **options),
        lambda delay_ms: Session(checkpoint, delay_ms=delay_ms, **options),
    )


def words_of(events: Sequence[Event]) -> list[str]:
    return [event.word.text for event in events if isinstance(event, WordFinal)]


def check_timeline(events: Sequence[Event], duration_ms: int) -> None:
    """One stream: an id for every 80 ms, words in order, texts as the words say."""
    indices = [event.index for event in events if isinstance(event, TokenDecoded)]
    assert indices == list(range(len(indices)))
    words = [event.word for event in events if isinstance(event, WordFinal)]
    starts = [word.start_ms for word in words]
    assert starts == sorted(starts)
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text.split() == [word.text for word in words]
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert abs(finished.duration_ms - duration_ms) < 80
    assert finished.n_tokens == len(indices)


# ------------------------------------------------------------ without a network

SPEECH = st.lists(
    st.tuples(st.integers(1, 99), st.sampled_from([1, 1, 2, 8, 11, 12, 40])),
    min_size=1,
    max_size=25,
)
DELAYS_MS = (80, 480, 960, 2400)


@settings(deadline=None, max_examples=60)
@given(
    SPEECH,
    st.lists(st.integers(1, 50_000), max_size=12),
    st.dictionaries(st.integers(0, 40), st.sampled_from(DELAYS_MS), max_size=4),
)
def test_no_number_is_lost_doubled_or_cut_whenever_the_delay_changes(
    said: list[tuple[int, int]], lengths: list[int], changes: dict[int, int]
) -> None:
    sound = spoken(said)
    stream = ChangingStream(
        as_session(NumberSession(480)), lambda ms: as_session(NumberSession(ms))
    )
    events: list[Event] = []
    cuts = [min(int(cut), len(sound)) for cut in np.cumsum([0, *lengths])]
    for i, (start, end) in enumerate(pairwise([*cuts, len(sound)])):
        if i in changes:
            stream.change_delay(changes[i])
        events += stream.push(sound[start:end])
        # A stream that has something to say is pushed without sound too.
        while stream.samples_wanted == 0:
            events += stream.push(np.zeros(0, np.float32))
    events += stream.finish()
    assert words_of(events) == [str(number) for number, _ in said]
    check_timeline(events, len(sound) * 1000 // RATE)


def test_the_delay_changes_with_the_end_of_the_utterance_and_at_once_in_silence() -> (
    None
):
    stream = ChangingStream(
        as_session(NumberSession(480)), lambda ms: as_session(NumberSession(ms))
    )
    stream.push(spoken([(5, 4), (6, 2)]))
    stream.push(np.zeros(6 * 1280, np.float32))
    stream.change_delay(240)
    assert stream.is_changing
    events: list[Event] = []
    while stream.is_changing:
        assert stream.delay_ms == 480
        events = stream.push(np.zeros(1280, np.float32))
    assert isinstance(events[-1], UtteranceEnd)
    assert stream.delay_ms == 240
    stream.change_delay(960)
    assert not stream.is_changing
    assert stream.delay_ms == 960


def test_what_is_kept_does_not_grow_with_the_stream() -> None:
    stream = ChangingStream(
        as_session(NumberSession(480)), lambda ms: as_session(NumberSession(ms))
    )
    kept: list[int] = []
    for _ in range(30):
        stream.push(spoken([(5, 1)] * 12))
        kept.append(stream.n_kept)
    assert max(kept) <= 20 * RATE


# ------------------------------------------------------------ with the demo's


def check_changed(
    asked_s: float, piece: int, checkpoint: Checkpoint, sound: np.ndarray
) -> list[str]:
    """The words of a stream whose delay becomes 960 ms, asked for after `asked_s`."""
    stream = opened(checkpoint)
    events: list[Event] = []
    is_asked = False
    for start in range(0, len(sound), piece):
        if not is_asked and start >= asked_s * RATE:
            stream.change_delay(960)
            is_asked = True
        events += stream.push(sound[start : start + piece])
    assert stream.delay_ms == 960
    assert not stream.is_changing
    events += stream.finish()
    check_timeline(events, len(sound) * 1000 // RATE)
    return words_of(events)


def test_no_word_is_lost_or_doubled_when_the_delay_changes(
    checkpoint: Checkpoint, short: np.ndarray
) -> None:
    assert check_changed(2.0, 40_000, checkpoint, short) == SHORT


@pytest.mark.slow
@pytest.mark.parametrize("asked_s", np.arange(0, 17, 2.3).tolist())
@pytest.mark.parametrize("piece", [4000, 70_000])
def test_no_word_is_lost_or_doubled_whenever_the_delay_changes(
    asked_s: float, piece: int, checkpoint: Checkpoint, sound: np.ndarray
) -> None:
    assert check_changed(asked_s, piece, checkpoint, sound) == SAID


def test_a_delay_that_no_session_can_have_changes_nothing(
    checkpoint: Checkpoint, sound: np.ndarray
) -> None:
    stream = ChangingStream(
        Session(checkpoint, delay_ms=480, draft_delay_ms=240),
        lambda delay_ms: Session(checkpoint, delay_ms=delay_ms, draft_delay_ms=240),
    )
    stream.push(sound[: int(1.5 * RATE)])  # in the midst of words, so it waits
    stream.change_delay(960)
    for wrong in (100, 240, 80):
        with pytest.raises((DelayError, SessionError)):
            stream.change_delay(wrong)
    assert stream.is_changing  # to the one that was asked for before
    stream.change_delay(480)
    assert not stream.is_changing
    assert stream.delay_ms == 480


@pytest.mark.slow
def test_the_draft_of_a_session_that_goes_is_taken_back(
    checkpoint: Checkpoint, short: np.ndarray
) -> None:
    open_session = partial(Session, checkpoint, draft_delay_ms=80)
    stream = ChangingStream(
        open_session(delay_ms=960), lambda delay_ms: open_session(delay_ms=delay_ms)
    )
    events: list[Event] = []
    draft = ""
    for start in range(0, len(short), 3200):
        if start == 16 * 3200:
            stream.change_delay(480)
        for event in stream.push(short[start : start + 3200]):
            events.append(event)
            if isinstance(event, DraftChanged):
                draft = event.text
    events += stream.finish()
    assert words_of(events) == SHORT
    drafts = [event.text for event in events if isinstance(event, DraftChanged)]
    assert drafts[-1] == ""
    assert draft == "" or draft in drafts


@pytest.mark.slow
def test_a_stream_that_was_replayed_changes_its_delay_as_well(
    checkpoint: Checkpoint, short: np.ndarray
) -> None:
    first = Session(checkpoint, delay_ms=480)
    half = short[: 3 * RATE]
    tokens = [e for e in first.push(half) if isinstance(e, TokenDecoded)]
    stream = opened(checkpoint)
    pcm = (half * 32768).astype(np.int16)
    events = [
        event
        for one in stream.replay_pieces([pcm[:50_000], pcm[50_000:]], len(pcm), tokens)
        for event in one
    ]
    stream.change_delay(960)
    events += stream.push(short[3 * RATE :]) + stream.push(np.zeros(RATE, np.float32))
    assert stream.delay_ms == 960
    events += stream.finish()
    assert words_of(events) == SHORT
