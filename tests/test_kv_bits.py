"""Sessions that remember in 8 bits: the laws hold, and the words stay."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from tests.contract import cut, said_together
from voxmlx import (
    Checkpoint,
    Session,
    TextDelta,
    TokenDecoded,
    demo,
    load,
)
from voxmlx.batch import Batch
from voxmlx.errors import SessionError
from voxmlx.model.cache import KV_BITS

# 20 s: the decoder's ring of 96 wraps twice.
SAMPLE, _ = soundfile.read(demo.SAMPLE, dtype="float32")


@pytest.fixture(scope="module")
def demo_checkpoint() -> Checkpoint:
    return load(demo.NAME, "float32")


def heard(
    checkpoint: Checkpoint, pieces: Sequence[np.ndarray], kv_bits: int = 8
) -> tuple[list[int], str]:
    """The ids and the text of a session."""
    session = Session(checkpoint, kv_bits=kv_bits)
    events = [event for piece in pieces for event in session.push(piece)]
    events += session.finish()
    ids = [e.token_id for e in events if isinstance(e, TokenDecoded)]
    return ids, "".join(e.text for e in events if isinstance(e, TextDelta))


def test_the_demo_hears_every_word_of_its_sample_in_8_bits(
    demo_checkpoint: Checkpoint,
) -> None:
    words = demo.SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").split()
    _, text = heard(demo_checkpoint, [SAMPLE])
    assert text.split() == words


@pytest.mark.parametrize(
    "sizes",
    [
        [7, 0, 12_801, 3, 99_999],
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ([1280] * 200, [16_000])
        ),
    ],
)
def test_ids_do_not_depend_on_the_pieces_in_8_bits(
    demo_checkpoint: Checkpoint, sizes: list[int]
) -> None:
    assert heard(demo_checkpoint, cut(SAMPLE, sizes)) == heard(
        demo_checkpoint, [SAMPLE]
    )


def test_sessions_in_8_bits_go_their_own_ways(demo_checkpoint: Checkpoint) -> None:
    # Both start from the same silence, of which each has its own copy once it writes.
    alone = [heard(demo_checkpoint, [sound]) for sound in (SAMPLE, SAMPLE[::-1])]
    sessions = [Session(demo_checkpoint, kv_bits=8) for _ in range(2)]
    ids: list[list[int]] = [[], []]
    for start in range(0, len(SAMPLE), 16_000):
        for i, sound in enumerate((SAMPLE, SAMPLE[::-1])):
            events = sessions[i].push(sound[start : start + 16_000])
            ids[i] += [e.token_id for e in events if isinstance(e, TokenDecoded)]
    for got, (whole, _) in zip(ids, alone, strict=True):
        assert got == whole[: len(got)]


def test_hot_words_are_taken_back_in_8_bits(demo_checkpoint: Checkpoint) -> None:
    # A trial that is rolled back returns to a copy of the rings.
    session = Session(
        demo_checkpoint, kv_bits=8, hotwords=["turnip farm"], hotword_boost=8
    )
    events = session.push(SAMPLE) + session.finish()
    text = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert text == heard(demo_checkpoint, [SAMPLE])[1]


def test_sessions_in_16_and_8_bits_share_a_model_and_a_batch(
    demo_checkpoint: Checkpoint,
) -> None:
    sounds = [SAMPLE[:80_000], SAMPLE[40_000:120_000]]
    alone = {
        (i, bits): heard(demo_checkpoint, [sounds[i]], bits)[0]
        for i in range(2)
        for bits in KV_BITS
    }
    sessions = {(i, bits): Session(demo_checkpoint, kv_bits=bits) for i, bits in alone}
    said = said_together(
        Batch(demo_checkpoint.model),
        {session: sounds[i] for (i, _), session in sessions.items()},
    )
    for kind, session in sessions.items():
        ids = [e.token_id for e in said[session] if isinstance(e, TokenDecoded)]
        assert ids == alone[kind]


def test_rings_are_as_large_as_their_session_says(demo_checkpoint: Checkpoint) -> None:
    dtypes = {
        bits: Session(demo_checkpoint, kv_bits=bits).state.decoder.cache.rings[0].dtype
        for bits in KV_BITS
    }
    assert dtypes == {8: mx.int8, 16: mx.float32}


@pytest.mark.parametrize("bits", [0, 4, 32])
def test_other_bits_are_refused(demo_checkpoint: Checkpoint, bits: int) -> None:
    with pytest.raises(SessionError, match=f"kv_bits is {bits}, expected 8 or 16"):
        Session(demo_checkpoint, kv_bits=bits)


def test_bits_given_to_load_are_those_of_sessions_that_say_nothing() -> None:
    with pytest.warns(DeprecationWarning, match="use Session"):
        checkpoint = load(demo.NAME, "float32", kv_bits=8)
    assert Session(checkpoint).state.decoder.cache.bits == 8
    assert Session(checkpoint, kv_bits=16).state.decoder.cache.bits == 16
