"""Silence is stepped in blocks: the same events, far fewer passes, no word later."""

from collections import Counter
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.held_out import held_out
from tests.sounds import noise, silence
from voxmlx import (
    Checkpoint,
    DraftChanged,
    Event,
    Session,
    SessionError,
    TextDelta,
    TokenDecoded,
    load,
)
from voxmlx.audio.quiet import QuietRun
from voxmlx.config import SAMPLES_PER_AUDIO_TOKEN, STREAMING_PAD_ID
from voxmlx.decoding.decoded import Decoded
from voxmlx.decoding.rules import GUARDS
from voxmlx.timeline import Timeline

DELAY_MS = 480
# Speech, the delay and 8 audio tokens must be over before silence is collected.
SETTLED = 6 + 8


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("demo", "float32")


def speech() -> np.ndarray:
    return held_out("flite")[0].samples


def with_pauses() -> np.ndarray:
    """A sentence in faint noise with four seconds of it before and behind."""
    n = 4 * 16_000
    sound = np.concatenate([silence(n), speech(), silence(n)])
    return sound + noise(len(sound), seed=3, level=0.0005)


def pushed(
    checkpoint: Checkpoint, sound: np.ndarray, size: int = 1280, **options: Any
) -> list[Event]:
    session = Session(checkpoint, delay_ms=DELAY_MS, **options)
    events: list[Event] = []
    for start in range(0, len(sound), size):
        events += session.push(sound[start : start + size])
    return events + session.finish()


def counted(monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint) -> Counter[str]:
    """Steps of the encoder and passes of the decoder from now on."""
    counts: Counter[str] = Counter()
    model = checkpoint.model
    for name in ("encode_together", "logits_together"):
        method = getattr(model, name)

        def counting(*given: Any, _name: str = name, _method: Any = method) -> Any:
            counts[_name] += 1
            return _method(*given)

        monkeypatch.setattr(model, name, counting)
    return counts


def test_a_minute_of_silence_takes_a_quarter_of_the_passes(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of ten seconds, and without those in which the noise becomes known.
    sound = noise(10 * 16_000, level=0.0005)
    session = Session(checkpoint, delay_ms=DELAY_MS, silence_block=8)
    session.push(noise(2 * 16_000, seed=1, level=0.0005))
    counts = counted(monkeypatch, checkpoint)
    for start in range(0, len(sound), SAMPLES_PER_AUDIO_TOKEN):
        session.push(sound[start : start + SAMPLES_PER_AUDIO_TOKEN])
    n_tokens = len(sound) // SAMPLES_PER_AUDIO_TOKEN
    assert 0 < counts["encode_together"] <= n_tokens / 4
    assert 0 < counts["logits_together"] <= n_tokens / 4


def test_events_are_those_of_single_steps(checkpoint: Checkpoint) -> None:
    sound = with_pauses()
    options: dict[str, Any] = {"guards": tuple(GUARDS), "confidence": True}
    expected = pushed(checkpoint, sound, **options)
    assert any(isinstance(event, TextDelta) for event in expected)
    events = pushed(checkpoint, sound, 1000, silence_block=8, **options)
    assert ids_and_text(events) == ids_and_text(expected)


def test_drafts_are_those_of_single_steps(checkpoint: Checkpoint) -> None:
    sound = with_pauses()
    expected = pushed(checkpoint, sound, draft_delay_ms=80)
    assert any(isinstance(event, DraftChanged) for event in expected)
    events = pushed(checkpoint, sound, 3000, draft_delay_ms=80, silence_block=8)
    assert events == expected


def ids_and_text(events: list[Event]) -> list[object]:
    """All but probabilities, which a longer pass rounds otherwise."""
    return [
        (event.token_id, event.guard) if isinstance(event, TokenDecoded) else event
        for event in events
        if isinstance(event, TokenDecoded | TextDelta)
    ]


def test_nothing_is_collected_while_ids_are_held_back(checkpoint: Checkpoint) -> None:
    # A hot word's trial holds ids for a second after the word.
    timeline = Timeline(
        checkpoint.tokenizer,
        n_before=0,
        lookahead=0,
        delay_ms=DELAY_MS,
        has_guards=False,
        replacements={},
        pause_ms=800,
        silence_block=8,
    )
    timeline.push(silence(SAMPLES_PER_AUDIO_TOKEN * 40))
    n_ids = 0
    while timeline.next_audio(1) is not None:
        n_ids += 1
    n_ids -= 7  # the prompt's
    for _ in range(n_ids - 1):
        timeline.emit(Decoded(STREAMING_PAD_ID))
    timeline.push(silence(SAMPLES_PER_AUDIO_TOKEN))
    assert not timeline.is_collecting
    timeline.emit(Decoded(STREAMING_PAD_ID))
    assert timeline.is_collecting


def test_no_word_comes_with_a_later_piece_of_sound(checkpoint: Checkpoint) -> None:
    def arrivals(block: int) -> list[tuple[int, Event]]:
        session = Session(checkpoint, delay_ms=DELAY_MS, silence_block=block)
        found: list[tuple[int, Event]] = []
        sound = with_pauses()
        for start in range(0, len(sound), SAMPLES_PER_AUDIO_TOKEN):
            events = session.push(sound[start : start + SAMPLES_PER_AUDIO_TOKEN])
            found += [(start, e) for e in events if not isinstance(e, TokenDecoded)]
        return found

    assert arrivals(8) == arrivals(1)


@pytest.mark.parametrize("draft_ms", [None, 80])
def test_a_block_in_which_nothing_is_sure_is_decoded_one_by_one(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, draft_ms: int | None
) -> None:
    def unsure(logits: mx.array, ids: mx.array) -> mx.array:
        return mx.ones(ids.shape, mx.bool_)

    monkeypatch.setattr("voxmlx.decoding.network_requests.doubtful", unsure)
    sound = silence(SAMPLES_PER_AUDIO_TOKEN * 40)
    expected = pushed(checkpoint, sound, draft_delay_ms=draft_ms)
    events = pushed(checkpoint, sound, draft_delay_ms=draft_ms, silence_block=8)
    assert events == expected


def test_the_first_audio_token_of_speech_ends_the_block(
    checkpoint: Checkpoint,
) -> None:
    session = Session(checkpoint, delay_ms=DELAY_MS, silence_block=16)
    session.push(silence(SAMPLES_PER_AUDIO_TOKEN * (SETTLED + 2)))
    n = 0
    while not (session.push(silence(SAMPLES_PER_AUDIO_TOKEN))):
        n += 1
    assert n == 15
    for _ in range(5):
        assert session.push(silence(SAMPLES_PER_AUDIO_TOKEN)) == []
        assert 0 < session.samples_wanted <= SAMPLES_PER_AUDIO_TOKEN
        assert not session.is_due
    events = session.push(noise(SAMPLES_PER_AUDIO_TOKEN, level=0.1))
    assert len(events) == 6


@pytest.mark.parametrize("end", ["flush", "finish"])
def test_what_is_collected_comes_out_when_its_owner_wants_it(
    checkpoint: Checkpoint, end: str
) -> None:
    session = Session(checkpoint, delay_ms=DELAY_MS, silence_block=16)
    events = session.push(silence(SAMPLES_PER_AUDIO_TOKEN * 20))
    for _ in range(5):
        events += session.push(silence(SAMPLES_PER_AUDIO_TOKEN))
    plain = Session(checkpoint, delay_ms=DELAY_MS)
    expected = plain.push(silence(SAMPLES_PER_AUDIO_TOKEN * 25))
    assert len(events) < len(expected)
    assert events + getattr(session, end)() == expected + getattr(plain, end)()


def test_text_that_the_silence_still_brings_is_not_waited_for(
    tiny_checkpoint: Checkpoint,
) -> None:
    # The tiny model writes without end, so nothing is ever settled.
    sound = silence(SAMPLES_PER_AUDIO_TOKEN)
    session = Session(tiny_checkpoint, delay_ms=80, silence_block=8)
    plain = Session(tiny_checkpoint, delay_ms=80)
    for _ in range(40):
        assert session.push(sound) == plain.push(sound)


@pytest.mark.parametrize("block", [0, 17, -1])
def test_a_block_that_is_not_possible_is_refused(
    tiny_checkpoint: Checkpoint, block: int
) -> None:
    with pytest.raises(
        SessionError, match=f"silence_block is {block}, expected 1 to 16"
    ):
        Session(tiny_checkpoint, silence_block=block)


@pytest.mark.parametrize("sizes", [[1], [7, 159, 1280], [5000]])
def test_a_quiet_run_counts_whole_audio_tokens(sizes: list[int]) -> None:
    sound = np.concatenate([noise(1280 * 3, level=0.2), silence(1280 * 30)])
    run, start, i = QuietRun(), 0, 0
    while start < len(sound):
        size = sizes[i % len(sizes)]
        run.push(sound[start : start + size])
        start, i = start + size, i + 1
    # The first token after speech still holds its end.
    assert 28 <= run.n_tokens <= 30


@pytest.mark.slow
def test_an_hour_of_speech_and_silence_has_the_same_ids(checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(0)
    sentences = held_out()
    singles = Session(checkpoint, delay_ms=DELAY_MS)
    blocks = Session(checkpoint, delay_ms=DELAY_MS, silence_block=8)
    n, n_samples = 0, 0
    while n_samples < 3600 * 16_000:
        pause = silence(int(rng.uniform(0.2, 40) * 16_000))
        sound = np.concatenate([sentences[n % len(sentences)].samples, pause])
        sound += noise(len(sound), seed=n, level=0.0004)
        found: list[list[Event]] = []
        for session in (singles, blocks):
            events: list[Event] = []
            for start in range(0, len(sound), SAMPLES_PER_AUDIO_TOKEN):
                events += session.push(sound[start : start + SAMPLES_PER_AUDIO_TOKEN])
            found.append(events + session.flush())
        assert found[0] == found[1]
        n, n_samples = n + 1, n_samples + len(sound)
        mx.clear_cache()
