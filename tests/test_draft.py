"""A draft comes sooner, changes nothing that is confirmed, and is exact itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract import cut, piece_sizes, said_together
from tests.held_out import held_out, one_stream
from tests.sounds import speech_like
from voxmlx import (
    Checkpoint,
    DelayError,
    DraftChanged,
    Event,
    Finished,
    Session,
    SessionError,
    TextDelta,
    TokenDecoded,
    load,
)
from voxmlx.batch import Batch
from voxmlx.decoding.draft_decoder import DraftDecoder
from voxmlx.decoding.loop import compute
from voxmlx.decoding.rules import GUARDS
from voxmlx.timeline import Timeline

PAIRS = [(160, 960), (80, 480), (240, 2400)]
SOUND = speech_like(40_001, seed=5)


def run(
    checkpoint: Checkpoint,
    sound: np.ndarray,
    sizes: tuple[int, ...] = (),
    **options: Any,
) -> list[Event]:
    session = Session(checkpoint, **options)
    events = [event for piece in cut(sound, sizes) for event in session.push(piece)]
    return events + session.finish()


def confirmed(events: list[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, DraftChanged)]


def ids(events: list[Event]) -> list[int]:
    return [event.token_id for event in events if isinstance(event, TokenDecoded)]


@contextmanager
def draft_ids() -> Iterator[list[int]]:
    """The ids of all drafts meanwhile, those inside a prompt left out."""
    found: list[int] = []
    emit_draft = Timeline.emit_draft

    def noting(timeline: Timeline, token_id: int) -> list[Event]:
        found.extend([token_id] if token_id >= 0 else [])
        return emit_draft(timeline, token_id)

    with patch.object(Timeline, "emit_draft", noting):
        yield found


@pytest.mark.parametrize(("draft_ms", "delay_ms"), PAIRS)
def test_what_is_confirmed_is_what_a_session_without_a_draft_says(
    tiny_checkpoint: Checkpoint, draft_ms: int, delay_ms: int
) -> None:
    plain = run(tiny_checkpoint, SOUND, delay_ms=delay_ms)
    events = run(tiny_checkpoint, SOUND, delay_ms=delay_ms, draft_delay_ms=draft_ms)
    assert confirmed(events) == plain
    assert any(isinstance(event, DraftChanged) for event in events)


@pytest.mark.parametrize(("draft_ms", "delay_ms"), PAIRS)
def test_ids_of_a_draft_are_those_of_a_session_at_its_delay(
    tiny_checkpoint: Checkpoint, draft_ms: int, delay_ms: int
) -> None:
    alone = ids(run(tiny_checkpoint, SOUND, delay_ms=draft_ms))
    with draft_ids() as found:
        run(tiny_checkpoint, SOUND, delay_ms=delay_ms, draft_delay_ms=draft_ms)
    # The draft hears the padding of the longer delay at the end, and goes on in it.
    n = len(SOUND) // 1280
    assert n > 30
    assert found[:n] == alone[:n]


def test_ids_of_a_draft_are_those_of_a_network_with_its_window(
    tiny_checkpoint: Checkpoint,
) -> None:
    model = tiny_checkpoint.model
    window = model.config.decoder.sliding_window // 2
    audio = mx.random.normal((1, 80, model.config.decoder.dim), key=mx.random.key(1))

    def drafted(window: int | None) -> list[int]:
        draft = DraftDecoder(lambda: model.open_state(80, window=window))
        work = draft.step(audio)
        answer = None
        try:
            while True:
                answer = compute(model, work.send(answer))
        except StopIteration:
            return draft.take()

    shorter = drafted(window)
    assert shorter != drafted(None)
    config = model.config
    model.config = replace(
        config, decoder=replace(config.decoder, sliding_window=window)
    )
    decoder_config = model.decoder.config
    model.decoder.config = model.config.decoder
    try:
        assert drafted(None) == shorter
    finally:
        model.config, model.decoder.config = config, decoder_config


@settings(max_examples=15, deadline=None)
@given(sizes=piece_sizes(len(SOUND)), block=st.sampled_from([1, 8]))
def test_pieces_of_any_size_give_the_same_events_in_the_same_order(
    tiny_checkpoint: Checkpoint, sizes: list[int], block: int
) -> None:
    options: dict[str, Any] = {"delay_ms": 480, "draft_delay_ms": 80}
    whole = run(tiny_checkpoint, SOUND, **options)
    pieces = run(tiny_checkpoint, SOUND, tuple(sizes), silence_block=block, **options)
    assert pieces == whole


def test_hot_words_and_guards_act_on_what_is_confirmed_alone(
    tiny_checkpoint: Checkpoint,
) -> None:
    options: dict[str, Any] = {
        "delay_ms": 480,
        "hotwords": ["the ring", "you"],
        "hotword_boost": 4.0,
        "guards": tuple(GUARDS),
    }
    with draft_ids() as plain:
        run(tiny_checkpoint, SOUND, delay_ms=480, draft_delay_ms=80)
    with draft_ids() as found:
        events = run(tiny_checkpoint, SOUND, draft_delay_ms=80, **options)
    assert confirmed(events) == run(tiny_checkpoint, SOUND, **options)
    assert found == plain
    sizes = (1280,) * 20
    assert run(tiny_checkpoint, SOUND, sizes, draft_delay_ms=80, **options) == events


def test_sessions_with_and_without_drafts_share_a_batch(
    tiny_checkpoint: Checkpoint,
) -> None:
    options = [
        {"delay_ms": delay_ms, "draft_delay_ms": draft_ms}
        for draft_ms, delay_ms in [*PAIRS, (None, 480)]
    ]
    sessions = [Session(tiny_checkpoint, **one) for one in options]
    said = said_together(Batch(tiny_checkpoint.model), dict.fromkeys(sessions, SOUND))
    for session, one in zip(sessions, options, strict=True):
        assert said[session] == run(tiny_checkpoint, SOUND, **one)


def test_both_rows_take_one_pass_and_the_encoder_one_step(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_checkpoint.model
    n_rows: list[int] = []
    n_encoded: list[int] = []
    logits_together, encode_together = model.logits_together, model.encode_together

    def decoding(audio: Any, *given: Any) -> mx.array | None:
        n_rows.append(len(audio))
        return logits_together(audio, *given)

    def encoding(samples: Any, states: Any) -> list[mx.array]:
        n_encoded.append(len(states))
        return encode_together(samples, states)

    session = Session(tiny_checkpoint, delay_ms=480, draft_delay_ms=80)
    session.push(SOUND[: 20 * 1280])
    monkeypatch.setattr(model, "logits_together", decoding)
    monkeypatch.setattr(model, "encode_together", encoding)
    session.push(SOUND[20 * 1280 : 21 * 1280])
    assert n_rows == [2]
    assert n_encoded == [1]


def test_a_draft_whose_numbers_are_not_finite_begins_anew(
    tiny_checkpoint: Checkpoint,
) -> None:
    plain = run(tiny_checkpoint, SOUND, delay_ms=480)
    session = Session(tiny_checkpoint, delay_ms=480, draft_delay_ms=80)
    model = tiny_checkpoint.model
    logits_together = model.logits_together
    n_passes = 0

    def spoiled(*given: Any) -> mx.array | None:
        nonlocal n_passes
        logits = logits_together(*given)
        n_passes += 1
        if n_passes == 12:
            assert logits is not None
            assert len(logits) == 2
            return mx.concatenate([logits[:1], mx.full_like(logits[1:], mx.nan)])
        return logits

    with patch.object(model, "logits_together", spoiled):
        events = session.push(SOUND) + session.finish()
    assert confirmed(events) == plain
    drafts = [event for event in events if isinstance(event, DraftChanged)]
    assert drafts[-1].time_ms > 2000


def test_the_end_leaves_no_draft(tiny_checkpoint: Checkpoint) -> None:
    events = run(tiny_checkpoint, SOUND, delay_ms=480, draft_delay_ms=80)
    assert isinstance(events[-1], Finished)
    last = [event for event in events if isinstance(event, DraftChanged)][-1]
    assert last.text == ""


def test_words_of_the_demo_are_drafted_sooner_and_never_twice() -> None:
    checkpoint = load("demo", "float32")
    sound = one_stream(held_out("flite")[:2])
    events = run(checkpoint, sound, delay_ms=960, draft_delay_ms=160)
    text, heard_ms = "", 0
    shown_at: dict[str, int] = {}
    whole = "".join(event.text for event in events if isinstance(event, TextDelta))
    for event in events:
        if isinstance(event, TokenDecoded):
            heard_ms = event.time_ms + 960
        if isinstance(event, TextDelta):
            text += event.text
        if isinstance(event, DraftChanged) and (text + event.text).strip():
            shown = text + event.text
            shown_at.setdefault(shown, heard_ms)
    words = whole.split()
    assert len(words) > 8
    # Most words were there before they were confirmed, and none of them twice.
    right = [shown for shown in shown_at if whole.startswith(shown)]
    assert len(right) >= 0.7 * len(words)
    for shown in shown_at:
        assert len(shown.split()) <= len(words)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"draft_delay_ms": 100}, DelayError),
        ({"draft_delay_ms": 480}, SessionError),
        ({"draft_delay_ms": 960}, SessionError),
        ({"draft_delay_ms": 80, "draft_window_ms": 1000}, SessionError),
    ],
)
def test_a_draft_that_is_not_possible_is_refused(
    tiny_checkpoint: Checkpoint, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"expected|delay"):
        Session(tiny_checkpoint, delay_ms=480, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("draft_ms", "delay_ms"), PAIRS)
def test_twenty_sentences_in_one_stream(draft_ms: int, delay_ms: int) -> None:
    checkpoint = load("demo", "float32")
    sound = one_stream(held_out()[:20])
    rng = np.random.default_rng(draft_ms)
    sizes = tuple(int(n) for n in rng.choice([1, 160, 1280, 1281, 9000], 300))
    options = {"delay_ms": delay_ms, "guards": tuple(GUARDS)}
    plain = run(checkpoint, sound, **options)
    with draft_ids() as found:
        events = run(checkpoint, sound, sizes, draft_delay_ms=draft_ms, **options)
    assert confirmed(events) == plain
    alone = ids(run(checkpoint, sound, delay_ms=draft_ms))
    n = len(sound) // 1280
    assert found[:n] == alone[:n]
