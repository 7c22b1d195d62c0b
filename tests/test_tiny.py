"""The tiny checkpoint's promises to the tests that lean on it."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from tests.padding import pad_sound, prompt
from tests.sounds import noise, silence, speech_like
from tests.stages import logits, session_ids, stages
from tests.tiny import BOS, EOS, PAD, WORD, TinyModel
from voxmlx import Checkpoint, load
from voxmlx.config import ModelConfig

SOUND = speech_like(6 * 16_000 + 77, seed=1)
LONG_SOUND = speech_like(16 * 16_000, seed=1)


@pytest.fixture(scope="module")
def long_ids(tiny_checkpoint: Checkpoint) -> list[int]:
    return session_ids(tiny_checkpoint, LONG_SOUND, 480)


@pytest.fixture(scope="module")
def ids(tiny_checkpoint: Checkpoint) -> list[int]:
    return session_ids(tiny_checkpoint, SOUND, 480)


def test_the_same_seed_writes_the_same_bytes(
    tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    again = TinyModel().write(tmp_path)
    for name in ("params.json", "consolidated.safetensors", "tekken.json"):
        assert (again / name).read_bytes() == (tiny_checkpoint_dir / name).read_bytes()


def test_another_seed_changes_every_tensor() -> None:
    first, second = TinyModel(seed=1).tensors(), TinyModel(seed=2).tensors()
    assert not [name for name in first if np.array_equal(first[name], second[name])]


def test_full_depth_has_the_tensors_of_the_real_checkpoint() -> None:
    tensors = TinyModel(encoder_layers=32, decoder_layers=26).tensors()
    assert len(tensors) == 711
    biased = {
        name.removesuffix(".bias").split("layers.")[1].split(".", 1)[1]
        for name in tensors
        if name.endswith(".bias")
    }
    attention = {f"attention.{name}" for name in ("wq", "wv", "wo")}
    assert biased == attention | {"feed_forward.w2", "conv"}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_written_rounded_to_nearest(tmp_path: Path, dtype: str) -> None:
    model = TinyModel(seed=3)
    stored = mx.load(str(model.write(tmp_path, dtype) / "consolidated.safetensors"))
    assert isinstance(stored, dict)
    for name, values in model.tensors().items():
        expected = mx.array(values).astype(getattr(mx, dtype))
        assert stored[name].dtype == expected.dtype
        assert mx.array_equal(stored[name], expected), name


def test_the_strict_config_accepts_the_params(tiny_checkpoint_dir: Path) -> None:
    config = ModelConfig.from_params_file(tiny_checkpoint_dir / "params.json")
    assert config.encoder.sliding_window == TinyModel().encoder_window
    assert config.decoder.vocab_size == TinyModel().vocab_size


def test_mistral_common_loads_the_tekken_file(tiny_checkpoint_dir: Path) -> None:
    tekken = Tekkenizer.from_file(tiny_checkpoint_dir / "tekken.json")
    assert tekken.n_words == TinyModel().vocab_size
    assert (tekken.bos_id, tekken.eos_id) == (BOS, EOS)
    assert tekken.get_special_token("[STREAMING_PAD]") == PAD
    assert tekken.get_special_token("[STREAMING_WORD]") == WORD
    assert tekken.audio is not None
    assert tekken.audio.get_num_delay_tokens() == 6


def test_a_character_may_be_spread_over_several_ids(tiny_checkpoint_dir: Path) -> None:
    tekken = Tekkenizer.from_file(tiny_checkpoint_dir / "tekken.json")
    ids = range(1000, TinyModel().vocab_size)
    pieces = [tekken.id_to_byte_piece(token_id) for token_id in ids]
    merged = [piece for piece in pieces if len(piece) > 1]
    split = [piece for piece in merged if "\ufffd" in piece.decode(errors="replace")]
    assert len(split) > 50
    assert len(merged) - len(split) > 50


def test_an_impossible_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size is 1000"):
        TinyModel(vocab_size=1000).tekken()


def test_ids_vary_and_hold_blanks_words_and_text(long_ids: list[int]) -> None:
    assert len(set(long_ids)) > 25
    assert {PAD, WORD} <= set(long_ids)
    assert np.mean(np.diff(long_ids) == 0) < 0.5
    assert np.mean(np.array(long_ids) >= 1000) > 0.3


@pytest.mark.parametrize("other", [speech_like(len(SOUND), 2), noise(len(SOUND))])
def test_ids_react_to_the_sound(
    tiny_checkpoint: Checkpoint, ids: list[int], other: np.ndarray
) -> None:
    other_ids = session_ids(tiny_checkpoint, other, 480)
    assert np.mean(np.array(ids) == other_ids) < 0.5


def test_ids_react_to_the_delay(tiny_checkpoint: Checkpoint, ids: list[int]) -> None:
    assert ids != session_ids(tiny_checkpoint, SOUND, 560)


def test_the_best_id_leads_by_more_than_rounding(
    tiny_checkpoint: Checkpoint, long_ids: list[int]
) -> None:
    """And EOS leads now and then, so that masking it is not idle."""
    audio = stages(tiny_checkpoint, pad_sound(LONG_SOUND, 480)).adapter
    given = prompt(480) + long_ids[:-1]
    after = logits(tiny_checkpoint, audio, 480, given)[-len(long_ids) :]
    assert np.any(after.argmax(axis=1) == EOS)
    after[:, EOS] = -np.inf
    second, best = np.partition(after, -2)[:, -2:].T
    assert (best - second).min() > 1e-4
    assert np.median(best - second) > 0.2


def test_every_tensor_matters(tmp_path: Path) -> None:
    model = TinyModel(encoder_layers=1, decoder_layers=1)
    tensors = model.tensors()
    sound = np.concatenate([speech_like(12_800, seed=4), silence(1280)])
    ids = [BOS, *range(1000, 1010)]

    def answer(weights: dict[str, np.ndarray]) -> np.ndarray:
        checkpoint = load(model.write(tmp_path, tensors=weights), "float32")
        return logits(checkpoint, stages(checkpoint, sound).adapter, 480, ids)

    expected = answer(tensors)
    idle = [
        name
        for name, values in tensors.items()
        if np.abs(answer(tensors | {name: np.roll(values, 1)}) - expected).max() < 0.01
    ]
    assert not idle
