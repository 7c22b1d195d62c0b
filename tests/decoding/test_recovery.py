"""A stream outlives numbers that are not finite, wherever and whenever they come."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.poison import PASSING, STATE, poison_state, poisoned_once
from tests.sounds import speech_like
from tests.tiny import TinyModel
from voxmlx import Checkpoint, Event, Recovered, Session, TextDelta, TokenDecoded, load
from voxmlx.audio.values import MAX_LEVEL
from voxmlx.batch import Batch
from voxmlx.decoding.recovery import HISTORY_TOKENS
from voxmlx.decoding.rules import GUARDS
from voxmlx.errors import AudioError
from voxmlx.kernels import Fused

SOUND = speech_like(3 * 16_000 + 777, seed=11)
# To shrink an example of a whole stream takes minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
VALUES = (math.inf, -math.inf, math.nan)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"guards": tuple(GUARDS), "confidence": True},
    {"hotwords": ["the ring", "you"], "hotword_boost": 12.0},
    {"speculate": True},
    {"delay_ms": 2400, "alternatives": 2},
)


def ids(events: Sequence[Event]) -> list[int]:
    return [e.token_id for e in events if isinstance(e, TokenDecoded)]


def recoveries(events: Sequence[Event]) -> list[Recovered]:
    return [e for e in events if isinstance(e, Recovered)]


@pytest.fixture(scope="module")
def expected(tiny_checkpoint: Checkpoint) -> list[list[int]]:
    """For each of OPTIONS, the ids that SOUND gives."""
    sessions = [Session(tiny_checkpoint, **one) for one in OPTIONS]
    return [ids(session.push(SOUND) + session.finish()) for session in sessions]


def check(
    events: Sequence[Event], n_before: int, expected: list[int], value: float
) -> None:
    """What must be said by a stream that was poisoned after `n_before` ids."""
    said = ids(events)
    assert len(said) == len(expected)
    assert said[:n_before] == expected[:n_before]
    assert len(recoveries(events)) <= 1
    for event in recoveries(events):
        assert event.time_ms > n_before * 80
    # An infinite key may get a weight of exactly 0: as if it had not been heard.
    if math.isnan(value):
        # The whole stream is at hand, and float32 hears it again as it was.
        assert said == expected
    # Two seconds later it says no more of the same than it would have.
    after = n_before + 25
    assert len(set(said[after:])) > 1 or len(set(expected[after:])) <= 1


@given(
    place=st.sampled_from([*STATE, *PASSING]),
    value=st.sampled_from(VALUES),
    at=st.integers(0, len(SOUND)),
    share=st.floats(0, 1),
    piece=st.sampled_from([1280, 5000]),
    option=st.integers(0, len(OPTIONS) - 1),
)
@settings(max_examples=25, deadline=None, phases=PHASES)
def test_a_stream_goes_on_after_a_number_that_is_not_finite(
    tiny_checkpoint: Checkpoint,
    expected: list[list[int]],
    place: str,
    value: float,
    at: int,
    share: float,
    piece: int,
    option: int,
) -> None:
    session = Session(tiny_checkpoint, **OPTIONS[option])
    events = session.push(SOUND[:at])
    n_before = len(ids(events))
    rest = np.split(SOUND[at:], range(piece, len(SOUND) - at, piece))
    if place in STATE:
        poison_state(session, place, value, share)
        for part in rest:
            events += session.push(part)
        events += session.finish()
    else:
        with poisoned_once(tiny_checkpoint.model, place, value, 0):
            for part in rest:
                events += session.push(part)
            events += session.finish()
    check(events, n_before, expected[option], value)


@given(
    place=st.sampled_from([*STATE, *PASSING]),
    value=st.sampled_from(VALUES),
    at=st.integers(0, 50),
    share=st.floats(0, 1),
    row=st.integers(0, 3),
)
@settings(max_examples=10, deadline=None, phases=PHASES)
def test_other_sessions_of_a_batch_notice_nothing(
    tiny_checkpoint: Checkpoint,
    expected: list[list[int]],
    place: str,
    value: float,
    at: int,
    share: float,
    row: int,
) -> None:
    batch = Batch(tiny_checkpoint.model)
    sessions = [Session(tiny_checkpoint, **one) for one in OPTIONS[:4]]
    events: dict[Session, list[Event]] = {session: [] for session in sessions}
    for session in sessions:
        batch.add(session)
    step, n_before = 0, 0
    parts = np.split(SOUND, range(1280, len(SOUND), 1280))

    def run(until: int | None) -> None:
        nonlocal step
        while len(batch) and step != until:
            for session in sessions:
                if step < len(parts):
                    session.timeline.push(parts[step])
                elif step == len(parts):
                    session.timeline.end()
            step += 1
            for session, said in batch.step():
                events[session] += said

    run(at)
    n_before = len(ids(events[sessions[row]]))
    if place in STATE:
        poison_state(sessions[row], place, value, share)
        run(None)
    else:
        with poisoned_once(tiny_checkpoint.model, place, value, row):
            run(None)
    hit = [i for i, session in enumerate(sessions) if recoveries(events[session])]
    assert len(hit) <= 1
    for i, session in enumerate(sessions):
        if i in hit or (i == row and place in STATE):
            n = n_before if place in STATE else 0
            check(events[session], n, expected[i], value)
        else:
            assert ids(events[session]) == expected[i]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("cause", ["encoder", "decoder"])
def test_the_event_says_when_and_which_part(
    tiny_checkpoint: Checkpoint, cause: str, value: float
) -> None:
    session = Session(tiny_checkpoint)
    n_before = len(ids(session.push(SOUND[:40_000])))
    with poisoned_once(tiny_checkpoint.model, f"{cause} 1", value, 0):
        events = session.push(SOUND[40_000 : 40_000 + session.samples_wanted])
    (event,) = recoveries(events)
    assert event.cause == cause
    (token,) = (e for e in events if isinstance(e, TokenDecoded))
    assert event.time_ms == token.time_ms == (n_before + 1) * 80


def test_eight_bit_rings_recover_too(tiny_checkpoint_dir: Path) -> None:
    checkpoint = load(tiny_checkpoint_dir, "float32")
    whole = Session(checkpoint, kv_bits=8)
    expected = ids(whole.push(SOUND) + whole.finish())
    session = Session(checkpoint, kv_bits=8)
    events = session.push(SOUND[:30_000])
    rows = session.state.decoder.cache.rings
    poisoned = np.array(rows[1])
    poisoned[:, :, :, -4:] = np.frombuffer(np.float32(np.nan).tobytes(), np.int8)
    rows[1] = type(rows[1])(poisoned)
    events += session.push(SOUND[30_000:]) + session.finish()
    assert len(recoveries(events)) == 1
    assert ids(events) == expected


def test_text_goes_on_long_after_the_start(tiny_checkpoint: Checkpoint) -> None:
    sound = speech_like(40 * 16_000, seed=3)
    session = Session(tiny_checkpoint)
    events = session.push(sound[: 30 * 16_000])
    poison_state(session, "decoder ring 1", math.nan, 0.75)
    later = session.push(sound[30 * 16_000 :])
    (event,) = recoveries(later)
    texts = [e for e in later if isinstance(e, TextDelta)]
    assert texts[0].time_ms <= event.time_ms + 2000
    # What is kept to hear again has a bound.
    embeddings = session.arrays()[len(session.state.arrays()) :]
    n_held = sum(a.shape[1] for a in embeddings)
    assert HISTORY_TOKENS <= n_held <= HISTORY_TOKENS + 64
    del events


def test_the_loudest_sound_of_all_ends_no_stream(
    tiny_checkpoint: Checkpoint, expected: list[list[int]]
) -> None:
    session = Session(tiny_checkpoint)
    events = session.push(SOUND[:30_000])
    with pytest.raises(AudioError, match="expected -1 to 1"):
        session.push(np.full(3000, 3e38, np.float32))
    events += session.push(SOUND[30_000:]) + session.finish()
    assert ids(events) == expected[0]
    session = Session(tiny_checkpoint)
    events = session.push(SOUND[:30_000])
    events += session.push(np.full(3000, MAX_LEVEL, np.float32))
    events += session.push(SOUND[30_000:]) + session.finish()
    assert len(ids(events)) == -(-(len(SOUND) + 3000) // 1280) + 10
    assert recoveries(events) == []


@pytest.mark.parametrize("options", OPTIONS)
def test_a_network_that_is_broken_ends_no_stream(
    tiny_checkpoint: Checkpoint, options: dict[str, Any]
) -> None:
    model = tiny_checkpoint.model
    session = Session(tiny_checkpoint, **options)
    events = session.push(SOUND[:20_000])
    own = model.decoder.norm.weight
    model.decoder.norm.weight = own * math.nan
    try:
        events += session.push(SOUND[20_000:40_000])
    finally:
        model.decoder.norm.weight = own
    events += session.push(SOUND[40_000:]) + session.finish()
    assert len(ids(events)) == -(-len(SOUND) // 1280) + 10
    assert len(recoveries(events)) >= 1


def test_a_silence_that_came_out_wrong_is_not_kept_for_later_streams(
    tiny_checkpoint_dir: Path, expected: list[list[int]]
) -> None:
    checkpoint = load(tiny_checkpoint_dir, "float32")
    with poisoned_once(checkpoint.model, "encoder 0", math.nan, 0):
        session = Session(checkpoint)
    events = session.push(SOUND) + session.finish()
    assert recoveries(events) == []
    assert ids(events) == expected[0]


def scaled(directory: Path) -> Path:
    """A model whose SwiGLU overflows in float16; in float32 it says what TinyModel does."""
    model = TinyModel()
    tensors = model.tensors()
    for name, tensor in tensors.items():
        if name.endswith(("feed_forward.w1.weight", "feed_forward.w3.weight")):
            tensors[name] = tensor * 128
        elif name.endswith("feed_forward.w2.weight"):
            tensors[name] = tensor / 128
    return model.write(directory, "float16", tensors)


def test_swiglu_that_overflows_float16_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load(scaled(tmp_path / "model"), "float16")
    session = Session(checkpoint)
    assert recoveries(session.push(SOUND) + session.finish()) == []

    def unbounded(gate_up: Any) -> Any:
        gate, up = gate_up.split(2, axis=-1)
        return gate * (1 / (1 + (-gate).exp())) * up

    monkeypatch.setattr("voxmlx.model.layer.swiglu", Fused(unbounded))
    session = Session(load(tmp_path / "model", "float16"))
    assert recoveries(session.push(SOUND) + session.finish())
