"""Sessions stepped together say exactly what each says alone."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.utils
import numpy as np
import pytest

from tests.contract import said_together
from tests.held_out import held_out
from tests.sounds import speech_like
from voxmlx import (
    Checkpoint,
    Event,
    Finished,
    GuardActed,
    Session,
    TokenDecoded,
    WordFinal,
    load,
)
from voxmlx.batch import Batch
from voxmlx.decoding.loop import decode_together, greedy_ids
from voxmlx.decoding.network_requests import DecodeRequest
from voxmlx.decoding.rules import GUARDS, PadRunGuard, RepetitionGuard

DELAYS_MS = (80, 160, 240, 480, 480, 960, 1200, 2400)
SOUNDS = [
    speech_like(n, seed=n)
    for n in (0, 700, 9_000, 40_000, 25_001, 33_333, 20_480, 52_001)
]
# The tick at which each comes.
STARTS = (0, 0, 3, 1, 7, 12, 20, 2)


def ids(events: list[Event]) -> list[int]:
    return [e.token_id for e in events if isinstance(e, TokenDecoded)]


def alone(checkpoint: Checkpoint, sound: np.ndarray, **options: Any) -> list[Event]:
    session = Session(checkpoint, **options)
    return session.push(sound) + session.finish()


class Streams:
    """Sounds that come to a batch in ragged pieces, each from its own tick on."""

    def __init__(self, checkpoint: Checkpoint, options: list[dict[str, Any]]) -> None:
        self.batch = Batch(checkpoint.model)
        self.sessions = [Session(checkpoint, **one) for one in options]
        self.events: list[list[Event]] = [[] for _ in options]
        self._n_heard = [0] * len(options)
        self._rng = np.random.default_rng(0)

    def tick(self, number: int, gone: set[int]) -> None:
        for i, session in enumerate(self.sessions):
            if number < STARTS[i] or i in gone:
                continue
            if number == STARTS[i]:
                self.batch.add(session)
            if session.timeline.is_ended:
                continue
            n = int(self._rng.choice([0, 1, 1279, 1280, 1281, 2560, 20_000]))
            piece = SOUNDS[i][self._n_heard[i] : self._n_heard[i] + n]
            self._n_heard[i] += n
            session.timeline.push(piece)
            if self._n_heard[i] >= len(SOUNDS[i]):
                session.timeline.end()
        for session, events in self.batch.step():
            self.events[self.sessions.index(session)] += events

    def run(self, gone: dict[int, int] | None = None) -> None:
        """Until all have finished but those `gone`, which are removed at a tick."""
        number = 0
        while number <= max(STARTS) or len(self.batch):
            for i, at in (gone or {}).items():
                if at == number:
                    self.batch.remove(self.sessions[i])
            self.tick(number, {i for i, at in (gone or {}).items() if at <= number})
            number += 1


@pytest.fixture(scope="module")
def expected(tiny_checkpoint: Checkpoint) -> list[list[Event]]:
    return [
        alone(tiny_checkpoint, sound, delay_ms=delay_ms)
        for sound, delay_ms in zip(SOUNDS, DELAYS_MS, strict=True)
    ]


def test_eight_sessions_say_what_each_says_alone(
    tiny_checkpoint: Checkpoint, expected: list[list[Event]]
) -> None:
    streams = Streams(tiny_checkpoint, [{"delay_ms": ms} for ms in DELAYS_MS])
    streams.run()
    assert streams.events == expected


def test_a_session_that_goes_disturbs_no_other(
    tiny_checkpoint: Checkpoint, expected: list[list[Event]]
) -> None:
    streams = Streams(tiny_checkpoint, [{"delay_ms": ms} for ms in DELAYS_MS])
    gone = {1: 1, 3: 9, 7: 30}
    streams.run(gone)
    for i, (events, whole) in enumerate(zip(streams.events, expected, strict=True)):
        assert events == (whole[: len(events)] if i in gone else whole)


def test_whatever_a_session_asks_for_concerns_it_alone(
    tiny_checkpoint: Checkpoint,
) -> None:
    options: list[dict[str, Any]] = [
        {"delay_ms": 240, "hotwords": ["the ring", "you"], "hotword_boost": 4.0},
        {"delay_ms": 480},
        {"guards": tuple(GUARDS), "alternatives": 3},
        {"confidence": True, "hotwords": ["café"], "hotword_boost": 6.0},
    ]
    sounds = [3, 7, 4, 5]
    sessions = [Session(tiny_checkpoint, **one) for one in options]
    heard = {s: SOUNDS[which] for s, which in zip(sessions, sounds, strict=True)}
    said = said_together(Batch(tiny_checkpoint.model), heard)
    for session, which, one in zip(sessions, sounds, options, strict=True):
        assert ids(said[session]) == ids(alone(tiny_checkpoint, SOUNDS[which], **one))


def without_probabilities(events: Sequence[Event]) -> list[Event]:
    """A GPU may sum one row in another order than eight."""
    bare: list[Event] = []
    for event in events:
        match event:
            case TokenDecoded():
                others = [replace(a, logprob=0.0) for a in event.alternatives]
                bare.append(replace(event, logprob=None, alternatives=tuple(others)))
            case WordFinal(word):
                bare.append(replace(event, word=replace(word, confidence=None)))
            case _:
                bare.append(event)
    return bare


def logprobs(events: Sequence[Event]) -> list[float]:
    tokens = [e for e in events if isinstance(e, TokenDecoded)]
    own = [e.logprob for e in tokens if e.logprob is not None]
    return own + [a.logprob for e in tokens for a in e.alternatives]


def acting_in_a_batch(
    checkpoint: Checkpoint,
    sounds: Sequence[np.ndarray],
    options: Sequence[dict[str, Any]],
) -> tuple[set[str], list[bool]]:
    """Guards that acted, and of each session whether hot words changed its ids.

    All of a session's events are those it says alone.
    """
    sessions = [Session(checkpoint, **one) for one in options]
    heard = dict(zip(sessions, sounds, strict=True))
    said = said_together(Batch(checkpoint.model), heard)
    acted: set[str] = set()
    changed: list[bool] = []
    for session, sound, one in zip(sessions, sounds, options, strict=True):
        events = said[session]
        whole = alone(checkpoint, sound, **one)
        assert without_probabilities(events) == without_probabilities(whole)
        assert logprobs(events) == pytest.approx(logprobs(whole), abs=1e-4)
        acted |= {e.guard for e in events if isinstance(e, GuardActed)}
        plain = {key: one[key] for key in one if not key.startswith("hotword")}
        changed.append(ids(events) != ids(alone(checkpoint, sound, **plain)))
    return acted, changed


def test_guards_and_hot_words_that_act_do_the_same_in_a_batch(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Guards so hasty that they act within a sentence.
    monkeypatch.setattr(PadRunGuard, "patience_tokens", 4)
    monkeypatch.setattr(PadRunGuard, "slope", 4.0)
    monkeypatch.setattr(PadRunGuard, "max_penalty", 20.0)
    monkeypatch.setattr(RepetitionGuard, "min_repeated", 1)
    monkeypatch.setattr(RepetitionGuard, "min_periods", 0)
    all_guards: dict[str, Any] = {"guards": list(GUARDS), "alternatives": 2}
    said = held_out("espeak")
    acted, changed = acting_in_a_batch(
        load("demo", "float32"),
        [said[i].samples for i in (0, 2, 3, 4, 5)],
        [
            {"delay_ms": 960},
            {"hotwords": ["seventy", "five hundred"], "hotword_boost": 12.0},
            {"hotwords": ["march"], "hotword_boost": 12.0, **all_guards},
            {"delay_ms": 240, **all_guards},
            {"hotwords": ["nine", "two"], "hotword_boost": 16.0, "confidence": True},
        ],
    )
    assert acted == {"pad_run"}
    assert changed == [False, True, False, False, True]
    acted, changed = acting_in_a_batch(
        tiny_checkpoint,
        [SOUNDS[i] for i in (3, 7, 4, 5)],
        [
            {"hotwords": ["the ring", "you"], "hotword_boost": 12.0, **all_guards},
            all_guards,
            {"guards": ["repetition"], "delay_ms": 240},
            {"hotwords": ["é", "the"], "hotword_boost": 20.0},
        ],
    )
    assert "repetition" in acted
    assert any(changed)


def test_a_bet_that_is_open_at_the_end_is_settled_in_a_batch_too(
    tiny_checkpoint: Checkpoint,
) -> None:
    options: dict[str, Any] = {
        "hotwords": ["the ring you", "a bell and the end of it"],
        "hotword_boost": 20.0,
    }
    batch = Batch(tiny_checkpoint.model)
    sessions = [Session(tiny_checkpoint, **options) for _ in range(6)]
    sounds = [speech_like(2_000 + 1_280 * i, seed=i) for i in range(6)]
    said: dict[int, list[Event]] = {id(session): [] for session in sessions}
    n_open = 0
    for session, sound in zip(sessions, sounds, strict=True):
        batch.add(session)
        session.timeline.push(sound)
        session.timeline.end()
    while len(batch):
        for session, events in batch.step():
            said[id(session)] += events
        n_open += sum(s.is_finished for s in sessions if not said[id(s)])
        n_open += sum(
            s.is_finished and not isinstance(said[id(s)][-1], Finished)
            for s in sessions
            if said[id(s)]
        )
    assert n_open > 0, "no trial was open at an end: the test shows nothing"
    for session, sound in zip(sessions, sounds, strict=True):
        assert said[id(session)] == alone(tiny_checkpoint, sound, **options)


def test_nothing_is_due_without_a_whole_audio_token(
    tiny_checkpoint: Checkpoint,
) -> None:
    batch = Batch(tiny_checkpoint.model)
    session = Session(tiny_checkpoint)
    batch.add(session)
    while batch.n_due:  # the silence before a stream
        assert batch.step() == []
    session.timeline.push(np.zeros(session.samples_wanted - 1, np.float32))
    assert batch.n_due == 0
    session.timeline.push(np.zeros(1, np.float32))
    assert batch.n_due == 1


def test_a_step_of_eight_sessions_holds_each_weight_once(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_checkpoint.model
    states = [model.make_state(ms) for ms in DELAYS_MS]
    # Each in its own place: some inside their prompt, some far behind it.
    for i, state in enumerate(states):
        greedy_ids(model, speech_like(1280 * 15 * i + 40, seed=i)[None], state)
    monkeypatch.setattr(mx, "async_eval", lambda *_: None)
    samples = [mx.array(speech_like(1280, seed=i))[None] for i in range(8)]
    decodings = [
        DecodeRequest(audio, state)
        for audio, state in zip(
            model.encode_together(samples, states), states, strict=True
        )
    ]
    decode_together(model, decodings)
    assert {decoding.is_done for decoding in decodings} == {True}
    path = tmp_path / "step.dot"
    weights = dict(mlx.utils.tree_flatten(model.parameters()))
    tokens = [state.token for state in states]
    mx.export_to_dot(str(path), *tokens, **weights)
    uses = Counter(re.findall(r'^"(.+)" -> ', path.read_text(), re.MULTILINE))
    for name, array in weights.items():
        if array.ndim == 1 or ".ada." in name:
            continue  # `ada` is folded into norms once per stream
        # The embedding is tied: looked up, and the last product.
        assert uses[name] == (2 if name == "decoder.embedding.weight" else 1), name
