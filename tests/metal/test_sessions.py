"""Whole sessions say the same with emulated kernels as with the references."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.metal.conftest import Emulate
from tests.sounds import speech_like
from voxmlx import Checkpoint, Session, TokenDecoded, demo, load
from voxmlx.model.cache import KV_BITS

# The tiny model's rings, of 16 encoder frames and 32 tokens, wrap several times.
SOUND = speech_like(2 * 16_000, seed=7)
SAMPLE, _ = soundfile.read(demo.SAMPLE, dtype="float32")

EVERY_STEP = {"add_rms_norm", "window_attention"}
IN_8_BITS = {"quantize_rows", "ring_attention_q8", "ring_combine"}

Load = Callable[[], Checkpoint]


def ids(
    checkpoint: Checkpoint, sound: np.ndarray, piece: int, kv_bits: int
) -> list[int]:
    session = Session(checkpoint, kv_bits=kv_bits)
    starts = range(0, len(sound), piece)
    events = [e for s in starts for e in session.push(sound[s : s + piece])]
    events += session.finish()
    return [event.token_id for event in events if isinstance(event, TokenDecoded)]


def check(
    emulate: Emulate, load_model: Load, sound: np.ndarray, kv_bits: int, piece: int
) -> None:
    # Loaded twice: a model remembers the silence it has heard.
    expected = ids(load_model(), sound, piece, kv_bits)
    emulated = emulate(checks=False)
    assert ids(load_model(), sound, piece, kv_bits) == expected
    assert len(set(expected)) > 10
    n_tokens = len(sound) // 1280
    used = {name for name, k in emulated.items() if k.n_calls >= n_tokens}
    assert used == (EVERY_STEP | IN_8_BITS if kv_bits == 8 else EVERY_STEP)
    assert {name for name, kernel in emulated.items() if kernel.n_calls} == used


@pytest.mark.parametrize("kv_bits", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_the_tiny_model_says_the_same(
    emulate: Emulate, tiny_checkpoint_dir: Path, kv_bits: int
) -> None:
    def load_model() -> Checkpoint:
        return load(tiny_checkpoint_dir, "float32")

    check(emulate, load_model, SOUND, kv_bits, piece=1280)


@pytest.mark.slow
@pytest.mark.parametrize("kv_bits", KV_BITS)
def test_the_demo_model_says_the_same_of_its_whole_sample(
    emulate: Emulate, kv_bits: int
) -> None:
    def load_model() -> Checkpoint:
        return load(demo.NAME, "float32")

    check(emulate, load_model, SAMPLE, kv_bits, piece=1280)
