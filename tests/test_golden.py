"""Ours equals what transformers once made, on machines without transformers."""

import json

import numpy as np
import pytest

from tests.golden.inputs import (
    DELAYS_MS,
    ENCODER_STRIDE,
    LOGITS_DELAY_MS,
    LOGITS_STRIDE,
    MEL_STRIDE,
    MODEL,
    PATH,
    SOUND,
    checksums,
    token_ids,
)
from tests.padding import pad_sound
from tests.stages import Stages, logits, session_ids, stages
from voxmlx import Checkpoint, load

# As in tests/parity: float32 rounding of both sides is ten times less.
ATOL = 1e-4


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(PATH) as file:
        return dict(file)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load(MODEL.write(tmp_path_factory.mktemp("golden")), "float32")


@pytest.fixture(scope="module")
def ours(checkpoint: Checkpoint) -> Stages:
    return stages(checkpoint, pad_sound(SOUND, LOGITS_DELAY_MS))


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=ATOL)


def test_seeds_still_make_the_inputs_of_the_golden_vectors(
    golden: dict[str, np.ndarray],
) -> None:
    """If this one fails too, the inputs moved: run tests/golden/make.py again."""
    assert checksums() == json.loads(str(golden["checksums"]))


def test_log_mel_equals_the_golden_vectors(
    golden: dict[str, np.ndarray], ours: Stages
) -> None:
    assert_close(ours.mel[::MEL_STRIDE], golden["mel"])


def test_encoder_frames_equal_the_golden_vectors(
    golden: dict[str, np.ndarray], ours: Stages
) -> None:
    assert_close(ours.encoder[::ENCODER_STRIDE], golden["encoder"])


def test_audio_embeddings_equal_the_golden_vectors(
    golden: dict[str, np.ndarray], ours: Stages
) -> None:
    assert_close(ours.adapter, golden["adapter"])


def test_logits_equal_the_golden_vectors(
    golden: dict[str, np.ndarray], checkpoint: Checkpoint, ours: Stages
) -> None:
    got = logits(checkpoint, ours.adapter, LOGITS_DELAY_MS, token_ids())
    assert_close(got[::LOGITS_STRIDE], golden["logits"])


@pytest.mark.parametrize("delay_ms", DELAYS_MS)
def test_session_ids_equal_the_golden_ones(
    golden: dict[str, np.ndarray], checkpoint: Checkpoint, delay_ms: int
) -> None:
    expected = golden[f"tokens_{delay_ms}"].tolist()
    assert session_ids(checkpoint, SOUND, delay_ms) == expected
