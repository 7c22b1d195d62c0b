"""Ours equals transformers: every stage within 1e-4, every greedy id."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="parity needs torch: install .[parity]")
pytest.importorskip("transformers", reason="parity needs it: install .[parity]")

from tests.padding import pad_sound, prompt
from tests.reference import Reference
from tests.sounds import noise, silence, speech_like
from tests.stages import logits, session_ids, stages
from tests.tiny import TinyModel
from voxmlx import LEGAL_DELAYS_MS, Checkpoint, load

# Float32 rounding of both sides moves a logit by 1e-5; a wrong frame, window, angle
# or weight moves it by 1e-2 or more.
ATOL = 1e-4

MODELS = {
    "default": TinyModel(),
    # Windows that no step divides (the real encoder's 750 is no multiple of 4),
    # other group sizes, another depth.
    "uneven": TinyModel(
        seed=11,
        encoder_layers=3,
        encoder_window=18,
        decoder_layers=3,
        decoder_heads=6,
        decoder_kv_heads=3,
        decoder_window=37,
    ),
}

# Windows last 0.32 s of encoder frames and 2.6 s of positions: all of these, with
# 2.56 s of silence before them, are longer than both several times over.
SOUNDS = {
    "speech": speech_like(5 * 16_000 + 77, seed=6),
    "noise": noise(4 * 16_000, seed=6),
    "mostly silence": np.concatenate(
        [silence(40_001), speech_like(8000, seed=6), silence(30_000)]
    ),
}


@dataclass(frozen=True, slots=True)
class Pair:
    ours: Checkpoint
    theirs: Reference


@pytest.fixture(scope="module", params=MODELS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    directory = MODELS[request.param].write(tmp_path_factory.mktemp("model"))
    return Pair(load(directory, "float32"), Reference(directory))


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ATOL)


@pytest.mark.parametrize("sound", SOUNDS.values(), ids=SOUNDS)
def test_mel_encoder_and_adapter_equal_transformers(
    pair: Pair, sound: np.ndarray
) -> None:
    padded = pad_sound(sound, 480)
    ours = stages(pair.ours, padded)
    mel = pair.theirs.log_mel(padded)
    assert_close(ours.mel, mel)
    assert_close(ours.encoder, pair.theirs.encoder_output(mel))
    assert_close(ours.adapter, pair.theirs.adapter_output(mel))


@pytest.mark.parametrize("delay_ms", LEGAL_DELAYS_MS)
def test_logits_of_every_position_equal_transformers(pair: Pair, delay_ms: int) -> None:
    sound = SOUNDS["speech"]
    audio = stages(pair.ours, pad_sound(sound, delay_ms)).adapter
    # Any previous ids do, and random ones leave no embedding row unvisited for long.
    n_random = len(audio) - len(prompt(delay_ms))
    vocab_size = pair.ours.config.decoder.vocab_size
    random_ids = np.random.default_rng(delay_ms).integers(0, vocab_size, n_random)
    token_ids = prompt(delay_ms) + random_ids.tolist()
    assert_close(
        logits(pair.ours, audio, delay_ms, token_ids),
        pair.theirs.logits(sound, delay_ms, token_ids),
    )


@pytest.mark.parametrize("delay_ms", LEGAL_DELAYS_MS)
def test_session_ids_equal_transformers_generate(
    tiny_checkpoint: Checkpoint, generator: Reference, delay_ms: int
) -> None:
    sound = SOUNDS["speech"][: 3 * 16_000 + delay_ms]
    expected = generator.greedy_tokens(sound, delay_ms)
    assert session_ids(tiny_checkpoint, sound, delay_ms) == expected


@pytest.fixture(scope="module")
def generator(tiny_checkpoint_dir: Path) -> Reference:
    return Reference(tiny_checkpoint_dir)


@pytest.mark.parametrize("sound", SOUNDS.values(), ids=SOUNDS)
def test_session_ids_equal_the_greedy_choices_of_transformers(
    pair: Pair, sound: np.ndarray
) -> None:
    for delay_ms in (80, 2400):
        ids = session_ids(pair.ours, sound, delay_ms)
        assert ids == pair.theirs.greedy_choices(sound, delay_ms, ids)[0]


@pytest.mark.slow
def test_ninety_seconds_equal_transformers_with_exact_angles(
    tiny_checkpoint: Checkpoint, tiny_checkpoint_dir: Path
) -> None:
    theirs = Reference(tiny_checkpoint_dir, exact_angles=True)
    sound = speech_like(90 * 16_000 + 777, seed=7)
    padded = pad_sound(sound, 480)
    ours = stages(tiny_checkpoint, padded)
    mel = theirs.log_mel(padded)
    assert_close(ours.mel, mel)
    assert_close(ours.encoder, theirs.encoder_output(mel))
    assert_close(ours.adapter, theirs.adapter_output(mel))
    ids = session_ids(tiny_checkpoint, sound, 480)
    assert ids == theirs.greedy_choices(sound, 480, ids)[0]
    token_ids = prompt(480) + ids[:-1]
    our_logits = logits(tiny_checkpoint, ours.adapter, 480, token_ids)
    exact = theirs.logits(sound, 480, token_ids)
    assert_close(our_logits, exact)
    # Its own float32 angles, thousands of frames on, move transformers' logits by
    # more than ours are off (measured: 1.8e-4).
    own = Reference(tiny_checkpoint_dir).logits(sound, 480, token_ids)
    assert np.abs(our_logits - exact).max() < np.abs(own - exact).max()
