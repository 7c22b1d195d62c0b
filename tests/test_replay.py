"""A session that hears again what another heard, with the ids of that one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.sounds import speech_like
from voxmlx import Session
from voxmlx.checkpoint import Checkpoint
from voxmlx.decoding import token_decoder
from voxmlx.decoding.rules import GUARDS
from voxmlx.errors import SessionError
from voxmlx.events import Event, TokenDecoded

OPTIONS: dict[str, Any] = {
    "delay_ms": 240,
    "guards": tuple(GUARDS),
}


def tokens_of(events: Sequence[Event]) -> list[TokenDecoded]:
    return [event for event in events if isinstance(event, TokenDecoded)]


@pytest.mark.parametrize("n_known", [0, 1, 5, 24, 25, 33, 1000])
def test_the_events_are_those_of_the_first_session(
    tiny_checkpoint: Checkpoint, n_known: int
) -> None:
    sound = speech_like(16_000 * 5 + 77, seed=3)
    rest = speech_like(16_000 * 2, seed=4)
    first = Session(tiny_checkpoint, **OPTIONS)
    events = [
        e for i in range(0, len(sound), 700) for e in first.push(sound[i : i + 700])
    ]
    second = Session(tiny_checkpoint, **OPTIONS)
    replayed = second.replay(sound, tokens_of(events)[:n_known])
    assert replayed == events
    assert second.push(rest) + second.finish() == first.push(rest) + first.finish()


def test_known_ids_keep_their_probabilities_to_the_last_bit(
    tiny_checkpoint: Checkpoint,
) -> None:
    options = OPTIONS | {"confidence": True, "alternatives": 2}
    sound = speech_like(16_000 * 3, seed=3)
    first = Session(tiny_checkpoint, **options)
    events = [
        e for i in range(0, len(sound), 700) for e in first.push(sound[i : i + 700])
    ]
    second = Session(tiny_checkpoint, **options)
    assert second.replay(sound, tokens_of(events)) == events


def test_known_ids_stand_though_the_model_would_choose_others(
    tiny_checkpoint: Checkpoint,
) -> None:
    sound = speech_like(16_000 * 3)
    session = Session(tiny_checkpoint, delay_ms=240)
    known = [1400 + i for i in range(20)]
    ids = [token.token_id for token in tokens_of(session.replay(sound, known))]
    assert ids[:20] == known
    assert len(ids) > 20


def test_ids_without_sound_are_forgotten(tiny_checkpoint: Checkpoint) -> None:
    sound, rest = speech_like(16_000 * 2), speech_like(16_000 * 2, seed=5)
    first, second = (Session(tiny_checkpoint, delay_ms=240) for _ in range(2))
    events = first.push(sound)
    ids = [token.token_id for token in tokens_of(events)]
    assert second.replay(sound, [*ids, *[1400] * 50]) == events
    assert second.push(rest) == first.push(rest)


def test_sound_in_pieces_gives_the_same_as_whole(tiny_checkpoint: Checkpoint) -> None:
    sound = speech_like(16_000 * 3)
    first = Session(tiny_checkpoint, **OPTIONS)
    events = first.push(sound)
    second = Session(tiny_checkpoint, **OPTIONS)
    pieces = np.array_split(sound, 7)
    replay = second.replay_pieces(pieces, len(sound), tokens_of(events))
    assert [event for each in replay for event in each] == events


def test_what_is_far_back_is_not_heard_and_its_events_come_all_the_same(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_decoder, "_LEAD_TOKENS", 20)
    window = tiny_checkpoint.config.decoder.sliding_window
    sound = speech_like(1280 * (window + 100))
    first, second = (Session(tiny_checkpoint, **OPTIONS) for _ in range(2))
    events = first.push(sound)
    encoded: list[int] = []
    encode = type(tiny_checkpoint.model).encode

    def counted(self: Any, samples: Any, state: Any) -> Any:
        encoded.append(samples.shape[1])
        return encode(self, samples, state)

    monkeypatch.setattr(type(tiny_checkpoint.model), "encode", counted)
    known = tokens_of(events)
    assert second.replay(sound, known)[: len(events)] == events
    assert sum(encoded) < (window + 40) * 1280


def test_a_hot_word_that_may_have_begun_is_decoded_again(
    tiny_checkpoint: Checkpoint,
) -> None:
    options = {"delay_ms": 240, "hotwords": ["lamp", "a long walk"], "hotword_boost": 9}
    sound, rest = speech_like(16_000 * 6, seed=7), speech_like(16_000 * 4, seed=8)
    whole = Session(tiny_checkpoint, **options)
    events = whole.push(sound)
    tail = whole.push(rest) + whole.finish()
    for n_known in range(0, len(tokens_of(events)), 9):
        again = Session(tiny_checkpoint, **options)
        assert again.replay(sound, tokens_of(events)[:n_known]) == events
        assert again.push(rest) + again.finish() == tail


def test_replay_into_a_session_that_has_begun_is_refused(
    tiny_checkpoint: Checkpoint,
) -> None:
    session = Session(tiny_checkpoint)
    session.push(np.zeros(1600, np.float32))
    with pytest.raises(SessionError, match="replay into a new Session"):
        session.replay(np.zeros(1600, np.float32), [])


def test_an_id_outside_the_vocabulary_is_refused(tiny_checkpoint: Checkpoint) -> None:
    session = Session(tiny_checkpoint)
    with pytest.raises(SessionError, match="token id 1500 is outside"):
        session.replay(np.zeros(16_000, np.float32), [1500])
