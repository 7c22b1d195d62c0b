"""Guards free a decoder that is stuck, and change nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.driven import drive
from tests.evaluated import Evaluations
from tests.scripted import PAD, WORD, ScriptedModel, scripted, vocabulary
from tests.sounds import noise, silence, speech_like
from voxmlx.checkpoint import Checkpoint
from voxmlx.decoding.decoded import Decoded
from voxmlx.decoding.rules import GUARDS
from voxmlx.errors import SessionError
from voxmlx.events import Event, GuardActed, TokenDecoded, WordFinal
from voxmlx.session import Session
from voxmlx.timeline import Timeline

WORDS = vocabulary(" back", " a")
BACK, A = WORDS.encode(" back")[0], WORDS.encode(" a")[0]


def voice(n_samples: int, seed: int = 0) -> np.ndarray:
    """Loud from its first sample to its last."""
    return noise(n_samples, seed=seed, level=0.1)


def run(
    checkpoint: Checkpoint, sound: np.ndarray, guards: Sequence[str] = tuple(GUARDS)
) -> list[Event]:
    session = Session(checkpoint, guards=guards)
    return session.push(sound) + session.finish()


def ids(events: Sequence[Event]) -> list[int]:
    return [e.token_id for e in events if isinstance(e, TokenDecoded)]


def rut(margin: float) -> Checkpoint:
    """Blanks that lead by `margin`, until anything else has been said."""

    def script(index: int, before: Sequence[int]) -> dict[int, float]:
        if before and before[-1] == WORD:
            return {BACK: 10.0}
        is_free = any(token_id != PAD for token_id in before)
        return {PAD: 20.0, WORD: 0.0 if is_free else 20.0 - margin}

    return scripted(script, WORDS)


@pytest.mark.parametrize("margin", [3.5, 6.6])
def test_a_rut_ends_within_250_tokens_of_speech(margin: float) -> None:
    sound = speech_like(16_000 * 25)
    assert set(ids(run(rut(margin), sound, ()))) == {PAD}
    events = run(rut(margin), sound)
    found = ids(events)
    assert 200 < found.index(WORD) <= 250
    assert found[found.index(WORD) + 1] == BACK
    assert [e.word.text for e in events if isinstance(e, WordFinal)] == ["back"]
    (acted,) = (e for e in events if isinstance(e, GuardActed))
    assert acted == GuardActed("pad_run", 80 * (found.index(WORD) + 1))


@pytest.mark.parametrize("pause_s", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("speech_s", [0.3, 1.0, 3.0])
def test_pauses_of_two_seconds_lengthen_no_rut(pause_s: float, speech_s: float) -> None:
    n = int(16_000 * speech_s)
    pause = silence(int(16_000 * pause_s))
    n_pieces = int(25 / (speech_s + pause_s)) + 1
    pieces = [p for i in range(n_pieces) for p in (pause, voice(n, seed=i))]
    events = run(rut(6.6), np.concatenate(pieces))
    found = ids(events)
    assert 200 < found.index(WORD) <= 250
    assert [e.word.text for e in events if isinstance(e, WordFinal)] == ["back"]


def test_silence_after_speech_is_no_rut() -> None:
    # Blanks lead by so little that any penalty would be too much.
    sound = [voice(16_000 * 2), silence(16_000 * 60), voice(16_000 * 2)]
    assert set(ids(run(rut(0.25), np.concatenate(sound)))) == {PAD}
    # A sound now and then is no speech; neither does it break healthy blanks.
    knocks = [p for i in range(30) for p in (voice(1600, seed=i), silence(16_000 * 2))]
    assert set(ids(run(rut(8.5), np.concatenate(knocks)))) == {PAD}


@pytest.mark.parametrize(
    ("margin", "sound"),
    [
        (0.5, silence(16_000 * 40)),
        (0.5, noise(16_000 * 40, level=0.0005)),
        (8.5, speech_like(16_000 * 40)),
        (8.5, noise(16_000 * 40, level=0.1)),
    ],
)
def test_nothing_is_invented_in_silence(margin: float, sound: np.ndarray) -> None:
    events = run(rut(margin), sound)
    assert set(ids(events)) == {PAD}
    assert not [e for e in events if isinstance(e, GuardActed)]


def heard_in_a_rut(probability: float, marker: int = WORD) -> Checkpoint:
    """A rut whose way out is `marker`, and then text of a probability."""

    def script(index: int, before: Sequence[int]) -> dict[int, float]:
        if before and before[-1] == marker:
            others = WORDS.vocab_size - 1
            return {BACK: float(np.log(probability / (1 - probability) * others))}
        return {PAD: 20.0, marker: 16.0}

    return scripted(script, WORDS)


@pytest.mark.parametrize(
    ("probability", "marker", "is_freed"),
    [
        (0.9, WORD, True),
        (0.55, WORD, True),
        (0.45, WORD, False),
        (0.1, WORD, False),
        (0.9, A, False),  # text begins with a marker
    ],
)
def test_a_word_is_brought_out_only_where_the_model_has_heard_one(
    probability: float, marker: int, is_freed: bool
) -> None:
    sound = speech_like(16_000 * 30)
    checkpoint = heard_in_a_rut(probability, marker)
    events = run(checkpoint, sound)
    assert (BACK in ids(events)) == is_freed
    assert bool([e for e in events if isinstance(e, GuardActed)]) == is_freed
    assert len(ids(events)) == len(ids(run(checkpoint, sound, ())))
    if not is_freed:
        assert set(ids(events)) == {PAD}


def test_what_a_guard_has_tried_does_not_depend_on_pieces() -> None:
    sound = speech_like(16_000 * 30)
    for probability in (0.9, 0.1):
        whole = run(heard_in_a_rut(probability), sound)
        session = Session(heard_in_a_rut(probability), guards=list(GUARDS))
        events: list[Event] = []
        for piece in np.array_split(sound, 700):
            events += session.push(piece)
        assert events + session.finish() == whole


def test_a_stream_that_ends_while_a_guard_tries_a_word_has_no_word() -> None:
    sound = speech_like(16_000 * 25)
    found = ids(run(heard_in_a_rut(0.9), sound))
    at = found.index(WORD)
    # The id at `at` is the last: of the sound, delay and padding belong to it.
    shorter = sound[: (at + 1 - 10) * 1280]
    assert ids(run(heard_in_a_rut(0.9), shorter)) == [PAD] * (at + 1)


def test_after_a_word_that_was_none_the_guard_waits_longer_each_time() -> None:
    sound = speech_like(16_000 * 60)
    checkpoint = heard_in_a_rut(0.1)
    run(checkpoint, sound)
    model = cast("ScriptedModel", cast("Any", checkpoint.model))
    n_positions = model.n_positions
    n_plain = len(sound) // 1280 + 1 + 6 + 10
    # One position more for every word that was tried; 550 without a wait.
    assert 10 < n_positions - n_plain < 40


def test_a_guard_says_once_for_every_stretch_that_it_acts() -> None:
    timeline = Timeline(
        WORDS,
        n_before=0,
        lookahead=40,
        delay_ms=480,
        has_guards=True,
        replacements={},
        pause_ms=800,
    )
    said = [("a", 4), (None, 2), ("a", 1), ("b", 3), ("a", 2)]
    decoded = [Decoded(PAD, guard=guard) for guard, n in said for _ in range(n)]
    events = [event for one in decoded for event in timeline.emit(one)]
    assert [e for e in events if isinstance(e, GuardActed)] == [
        GuardActed(guard, 80 * time)
        for guard, time in (("a", 1), ("a", 7), ("b", 8), ("a", 11))
    ]


def test_the_old_name_of_a_guard_is_accepted_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="'blank_rut' is called 'pad_run' now"):
        session = Session(rut(3.5), guards=["blank_rut", "pad_run", "repetition"])
    events = session.push(speech_like(16_000 * 25)) + session.finish()
    assert {e.guard for e in events if isinstance(e, GuardActed)} == {"pad_run"}


def test_a_loop_is_broken_and_said_to_be() -> None:
    def script(index: int, before: Sequence[int]) -> dict[int, float]:
        is_a = bool(before) and before[-1] == WORD
        return {A if is_a else WORD: 15.0, PAD: 5.0}

    checkpoint = scripted(script, WORDS)
    sound = speech_like(16_000 * 8)
    assert PAD not in ids(run(checkpoint, sound, ()))
    events = run(checkpoint, sound)
    first = ids(events).index(PAD)
    assert 32 <= first < 48
    guards = [e for e in events if isinstance(e, GuardActed)]
    assert guards[0] == GuardActed("repetition", 80 * (first + 1))


def requested(checkpoint: Checkpoint, guards: Sequence[str]) -> list[int]:
    """How many positions each request of a stream has: no id of one is looked at."""
    session, sizes = Session(checkpoint, guards=guards), list[int]()
    session.timeline.push(silence(16_000 * 20))
    drive(session, checkpoint.model, lambda r: sizes.append(r.audio.shape[1]))
    return sizes


def test_guards_that_do_not_act_leave_whole_requests_to_the_loop() -> None:
    sizes = requested(rut(9.0), tuple(GUARDS))
    assert sizes == requested(rut(9.0), ())
    assert max(sizes) == 32


def test_guards_that_do_not_act_compute_nothing(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    sound = speech_like(16_000 * 3, seed=3)
    counts: list[tuple[list[int], int, int]] = []
    for guards in ((), (), tuple(GUARDS)):
        with pytest.MonkeyPatch.context() as monkeypatch:
            evaluations = Evaluations(monkeypatch, tmp_path)
            session = Session(tiny_checkpoint, guards=guards)
            events: list[Event] = []
            for piece in np.split(sound, range(1280, len(sound), 1280)):
                events += session.push(piece)
            assert not [e for e in events if isinstance(e, GuardActed)]
        counts.append(evaluations.counts())
    plain, guarded = counts[1:]  # the first hears the silence before a stream, too
    assert guarded == plain
    n_operations, n_read, n_chosen = plain
    assert sum(n_operations) > 1000
    assert n_read >= len(sound) // 1280
    assert n_chosen == 0


def test_ids_are_those_without_guards_until_one_acts(
    tiny_checkpoint: Checkpoint,
) -> None:
    sound = speech_like(16_000 * 4, seed=3)
    session = Session(tiny_checkpoint, guards=list(GUARDS))
    events = session.push(sound) + session.finish()
    acted = [i for i, e in enumerate(events) if isinstance(e, GuardActed)]
    free = ids(events[: acted[0] - 1] if acted else events)
    plain = Session(tiny_checkpoint)
    assert ids(plain.push(sound) + plain.finish())[: len(free)] == free
    assert free


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"guards": ["rut"]}, "'rut' is unknown; use pad_run, repetition"),
        ({"alternatives": -1}, "alternatives is -1"),
        ({"alternatives": 101}, "alternatives is 101"),
        ({"pause_ms": 100}, "100 ms, expected 240"),
        ({"hotwords": ["a"], "hotword_boost": -1.0}, "boosted by -1.0"),
        ({"hotword_boost": float("nan")}, "boosted by nan"),
        ({"hotwords": "Voxtral"}, "'Voxtral', expected a list"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SessionError, match=named):
        Session(rut(1.0), **options)
