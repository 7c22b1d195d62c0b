"""Every streamable layer keeps law 1."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import example, given, settings

from tests.contract import assert_chunking_is_not_observable, piece_sizes
from tests.sounds import speech_like
from voxmlx.checkpoint import Checkpoint

# Rounding differs with the number of rows a product has, by parts in 1e6.
ATOL = 2e-5

N_SAMPLES = 16_000
N_FRAMES = 150
FRAME_SIZES = (0, 1, 2, 3, 5, 7, 8, 9, 13, 16, 31, 64)


@pytest.fixture(scope="module")
def mel_frames(tiny_checkpoint: Checkpoint) -> np.ndarray:
    mel = tiny_checkpoint.model.mel
    sound = mx.array(speech_like(N_FRAMES * 160 + 200, seed=3))[None]
    return np.array(mel.step(sound, mel.make_state()))[:, :N_FRAMES]


@given(sizes=piece_sizes(N_SAMPLES))
@settings(max_examples=30)
def test_log_mel_does_not_depend_on_the_pieces(
    tiny_checkpoint: Checkpoint, sizes: list[int]
) -> None:
    mel = tiny_checkpoint.model.mel
    sound = speech_like(N_SAMPLES, seed=1)[None]
    assert_chunking_is_not_observable(mel.step, mel.make_state, sound, sizes, ATOL)


@pytest.mark.parametrize("name", ["conv1", "conv2"])
@given(sizes=piece_sizes(40, FRAME_SIZES))
@settings(max_examples=20)
def test_each_convolution_does_not_depend_on_the_pieces(
    tiny_checkpoint: Checkpoint, name: str, sizes: list[int]
) -> None:
    conv = getattr(tiny_checkpoint.model.encoder.stem, name)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 40, conv.weight.shape[2])).astype(np.float32)
    assert_chunking_is_not_observable(
        conv.step, lambda: conv.make_state(2), x, sizes, ATOL
    )


@given(sizes=piece_sizes(N_FRAMES, FRAME_SIZES))
@settings(max_examples=20)
def test_the_encoder_does_not_depend_on_the_pieces(
    tiny_checkpoint: Checkpoint, mel_frames: np.ndarray, sizes: list[int]
) -> None:
    encoder = tiny_checkpoint.model.encoder
    assert_chunking_is_not_observable(
        encoder.step, encoder.make_state, mel_frames, sizes, ATOL
    )


@given(sizes=piece_sizes(90, (0, 1, 1, 1, 2, 3, 31, 32, 33, 40)))
@example(sizes=[0, 40, 0, 50])
@settings(max_examples=20)
def test_the_decoder_does_not_depend_on_the_pieces(
    tiny_checkpoint: Checkpoint, sizes: list[int]
) -> None:
    decoder = tiny_checkpoint.model.decoder
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 90, decoder.config.dim)).astype(np.float32)
    assert_chunking_is_not_observable(
        decoder.step, lambda: decoder.make_state([6]), x, sizes, 5 * ATOL
    )
