"""Sessions that remember in 8 bits: the laws hold, and the words stay."""

from collections.abc import Sequence

import numpy as np
import pytest
import soundfile

from tests.contract import cut
from voxmlx import Checkpoint, Session, TextDelta, TokenDecoded, demo, load

# 20 s: the decoder's ring of 96 wraps twice.
SAMPLE, _ = soundfile.read(demo.SAMPLE, dtype="float32")


@pytest.fixture(scope="module")
def in_8_bits() -> Checkpoint:
    return load(demo.NAME, "float32", kv_bits=8)


def heard(
    checkpoint: Checkpoint, pieces: Sequence[np.ndarray]
) -> tuple[list[int], str]:
    """The ids and the text of a session."""
    session = Session(checkpoint)
    events = [event for piece in pieces for event in session.push(piece)]
    events += session.finish()
    ids = [e.token_id for e in events if isinstance(e, TokenDecoded)]
    return ids, "".join(e.text for e in events if isinstance(e, TextDelta))


def test_the_demo_hears_every_word_of_its_sample_in_8_bits(
    in_8_bits: Checkpoint,
) -> None:
    words = demo.SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").split()
    _, text = heard(in_8_bits, [SAMPLE])
    assert text.split() == words


@pytest.mark.parametrize("sizes", [[1280] * 200, [7, 0, 12_801, 3, 99_999], [16_000]])
def test_ids_do_not_depend_on_the_pieces_in_8_bits(
    in_8_bits: Checkpoint, sizes: list[int]
) -> None:
    assert heard(in_8_bits, cut(SAMPLE, sizes)) == heard(in_8_bits, [SAMPLE])


def test_sessions_in_8_bits_go_their_own_ways(in_8_bits: Checkpoint) -> None:
    # Both start from the same silence, of which each has its own copy once it writes.
    alone = [heard(in_8_bits, [sound]) for sound in (SAMPLE, SAMPLE[::-1])]
    sessions = [Session(in_8_bits), Session(in_8_bits)]
    ids: list[list[int]] = [[], []]
    for start in range(0, len(SAMPLE), 16_000):
        for i, sound in enumerate((SAMPLE, SAMPLE[::-1])):
            events = sessions[i].push(sound[start : start + 16_000])
            ids[i] += [e.token_id for e in events if isinstance(e, TokenDecoded)]
    for got, (whole, _) in zip(ids, alone, strict=True):
        assert got == whole[: len(got)]


def test_hot_words_are_taken_back_in_8_bits(in_8_bits: Checkpoint) -> None:
    # A bet that breaks goes back to a copy of the rings.
    session = Session(in_8_bits, hotwords=["turnip farm"], hotword_boost=8)
    events = session.push(SAMPLE) + session.finish()
    text = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert text == heard(in_8_bits, [SAMPLE])[1]
