"""Guards bring out no words where nobody speaks, and free real speech from a rut."""

from typing import Any

import mlx.core as mx
import pytest

from benchmarks.guards import measure
from tests.held_out import held_out, one_stream
from voxmlx import Checkpoint, GuardActed, Session, WordFinal, load
from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("demo", "float32")


@pytest.mark.slow
def test_clicks_and_music_have_no_more_words_with_guards(
    checkpoint: Checkpoint,
) -> None:
    sounds = [("clicks", 0), ("music", 0)]
    for row in measure(checkpoint, sounds, seconds=20):
        assert row.n_words_with <= row.n_words_without, row


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_no_sound_without_speech_has_more_words_with_guards(
    checkpoint: Checkpoint, seed: int
) -> None:
    names = ("clicks", "white noise", "pink noise", "hum", "silence", "music")
    for row in measure(checkpoint, [(name, seed) for name in names], seconds=150):
        assert row.n_words_with <= row.n_words_without, row


@pytest.fixture
def in_a_rut(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """A model whose PAD leads by five logits wherever a word is due."""
    decoder = checkpoint.model.decoder
    step_together = decoder.step_together

    def stuck(*given: Any, **options: Any) -> mx.array | None:
        logits = step_together(*given, **options)
        if logits is None:
            return None
        due = mx.argmax(logits, axis=-1) == STREAMING_WORD_ID
        lead = logits[:, STREAMING_WORD_ID] + 5.0 - logits[:, STREAMING_PAD_ID]
        return logits.at[:, STREAMING_PAD_ID].add(mx.where(due, lead, 0.0))

    monkeypatch.setattr(decoder, "step_together", stuck)
    return checkpoint


def test_real_speech_is_freed_from_a_rut(in_a_rut: Checkpoint) -> None:
    # In a rut that long the demo begins some words of espeak without a WORD token.
    said = held_out("flite")[:12]
    sound = one_stream(said)
    assert len(sound) > 16_000 * 25
    words: dict[tuple[str, ...], list[str]] = {}
    guards: list[str] = []
    for names in ((), ("pad_run",)):
        session = Session(in_a_rut, guards=names)
        events = session.push(sound) + session.finish()
        words[names] = [e.word.text for e in events if isinstance(e, WordFinal)]
        guards += [e.guard for e in events if isinstance(e, GuardActed)]
    assert words[()] == []
    assert guards
    spoken = {word for sentence in said for word in sentence.text.split()}
    # The first word after 17 s of PAD has no context, and may be wrong.
    assert {word.strip(".,").lower() for word in words["pad_run",]} & spoken
