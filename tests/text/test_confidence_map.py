"""A map of confidence is read whole, never falls, and leaves raw figures alone."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from voxmlx import Checkpoint, Session, TokenDecoded, WordFinal
from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.errors import CheckpointError
from voxmlx.text.confidence_map import (
    IDENTITY,
    MAP_NAME,
    ConfidenceMap,
    read_confidence_map,
)
from voxmlx.text.words import WordAssembler

LOW = ConfidenceMap((0.0, 0.5, 1.0), (0.1, 0.1, 0.6), 300)


def test_a_map_is_a_line_through_its_points() -> None:
    assert [LOW(x) for x in (0.0, 0.4, 0.75, 1.0)] == pytest.approx(
        [0.1, 0.1, 0.35, 0.6]
    )
    assert [IDENTITY(x) for x in (0.0, 0.3, 1.0)] == pytest.approx([0.0, 0.3, 1.0])


@pytest.mark.parametrize(
    ("raw", "calibrated"),
    [
        ((0.0, 1.0), (0.6, 0.5)),
        ((0.0, 0.5, 0.5, 1.0), (0.1, 0.2, 0.3, 0.4)),
        ((0.1, 1.0), (0.1, 1.0)),
        ((0.0, 1.0), (0.1, 1.1)),
        ((0.0, 1.0), (0.1,)),
        ((0.0,), (0.1,)),
    ],
)
def test_a_map_that_falls_or_has_gaps_is_refused(
    raw: tuple[float, ...], calibrated: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="expected"):
        ConfidenceMap(raw, calibrated)


def test_a_map_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_confidence_map(tmp_path) is IDENTITY
    (tmp_path / MAP_NAME).write_text(LOW.to_json())
    assert read_confidence_map(tmp_path) == LOW


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        json.dumps({"raw": [0, 1], "calibrated": [0, 1]}),
        json.dumps({"raw": [0, 1], "calibrated": [1, 0], "n_words": 1}),
        json.dumps({"raw": ["a", 1], "calibrated": [0, 1], "n_words": 1}),
    ],
)
def test_a_file_that_is_no_map_is_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / MAP_NAME).write_text(content)
    with pytest.raises(CheckpointError, match="holds no map of confidence"):
        read_confidence_map(tmp_path)


def test_words_are_mapped_and_tokens_stay_raw() -> None:
    assembler = WordAssembler(confidence_map=LOW)
    tokens = [
        (STREAMING_WORD_ID, "", -0.1),
        (2000, " so", math.log(0.75)),
        (STREAMING_PAD_ID, "", -0.1),
    ]
    words = [
        word
        for i, (token_id, text, logprob) in enumerate(tokens)
        for word in assembler.push(
            TokenDecoded(token_id, i, 80 * (i + 1), logprob), text
        )
    ]
    (word,) = words + assembler.flush("", 1000)
    assert word.confidence == pytest.approx(0.35)


def test_a_session_uses_the_map_of_its_checkpoint(tiny_checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, 32_000).astype(np.float32)
    flat = ConfidenceMap((0.0, 1.0), (0.25, 0.25), 300)
    logprobs: list[list[float | None]] = []
    for mapped in (IDENTITY, flat):
        checkpoint = replace(tiny_checkpoint, confidence_map=mapped)
        session = Session(checkpoint, confidence=True)
        events = session.push(sound) + session.finish()
        logprobs.append([e.logprob for e in events if isinstance(e, TokenDecoded)])
        words = [e.word for e in events if isinstance(e, WordFinal)]
    assert words
    assert {word.confidence for word in words} - {None} == {0.25}
    assert logprobs[0] == logprobs[1]
