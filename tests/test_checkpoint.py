"""A checkpoint is used whole or refused by name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tests.tiny import TinyModel
from voxmlx import Checkpoint, load
from voxmlx.checkpoint import DtypeName
from voxmlx.errors import CheckpointError, ConfigError, TokenizerError

WEIGHTS = "consolidated.safetensors"
NORM = "norm.weight"
QUERY = "layers.0.attention.wq.weight"


@pytest.fixture
def directory(tiny_checkpoint_dir: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_checkpoint_dir, tmp_path / "model"))


def stored_tensors(directory: Path) -> dict[str, mx.array]:
    tensors = mx.load(str(directory / WEIGHTS))
    assert isinstance(tensors, dict)
    return tensors


def edit(directory: Path, change: Callable[[dict[str, mx.array]], object]) -> None:
    tensors = stored_tensors(directory)
    mx.eval(tensors)
    change(tensors)
    mx.save_safetensors(str(directory / WEIGHTS), tensors)


def test_weights_are_packed_in_order(
    tiny_checkpoint: Checkpoint, tiny_checkpoint_dir: Path
) -> None:
    stored = stored_tensors(tiny_checkpoint_dir)
    layer = tiny_checkpoint.model.decoder.layers[0]
    parts = [stored[f"layers.0.attention.w{x}.weight"] for x in "qkv"]
    np.testing.assert_array_equal(
        np.array(layer.attention.qkv_proj.weight), np.concatenate(parts)
    )
    parts = [stored[f"layers.0.feed_forward.w{x}.weight"] for x in "13"]
    np.testing.assert_array_equal(
        np.array(layer.mlp.gate_up_proj.weight), np.concatenate(parts)
    )


def test_keys_have_a_bias_of_zero(tiny_checkpoint: Checkpoint) -> None:
    config = tiny_checkpoint.config.encoder
    n = config.n_heads * config.head_dim
    bias = tiny_checkpoint.model.encoder.layers[0].attention.qkv_proj["bias"]
    assert not mx.any(bias[n : 2 * n])
    assert mx.all(bias[:n])
    assert mx.all(bias[2 * n :])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_weight_has_the_dtype_asked_for(
    tiny_checkpoint_dir: Path, dtype: DtypeName
) -> None:
    checkpoint = load(tiny_checkpoint_dir, dtype)
    assert checkpoint.dtype == dtype
    parameters: Any = tree_flatten(checkpoint.model.parameters())
    kinds = {a.dtype for _, a in parameters}
    assert kinds == {getattr(mx, dtype)}


def test_an_unknown_dtype_is_refused(tiny_checkpoint_dir: Path) -> None:
    with pytest.raises(CheckpointError, match="use auto, float16, bfloat16, float32"):
        load(tiny_checkpoint_dir, "int8")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kv_bits", [0, 4, 32])
def test_bits_a_ring_cannot_have_are_refused(
    tiny_checkpoint_dir: Path, kv_bits: int
) -> None:
    with pytest.raises(
        CheckpointError, match=f"kv_bits is {kv_bits}, expected 8 or 16"
    ):
        load(tiny_checkpoint_dir, kv_bits=kv_bits)


def test_a_missing_tensor_is_named(directory: Path) -> None:
    edit(directory, lambda t: t.pop(QUERY))
    with pytest.raises(CheckpointError, match=f"lacks tensor {QUERY};"):
        load(directory)


def test_an_extra_tensor_is_named(directory: Path) -> None:
    edit(directory, lambda t: t.update(surprise=mx.zeros(3)))
    with pytest.raises(CheckpointError, match="unknown tensor surprise;"):
        load(directory)


def test_a_wrong_shape_is_named_with_both(directory: Path) -> None:
    edit(directory, lambda t: t.update({NORM: mx.zeros(60)}))
    with pytest.raises(
        CheckpointError, match=r"norm\.weight is \[60\], config says \[64\]"
    ):
        load(directory)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(directory: Path, value: float) -> None:
    def change(tensors: dict[str, mx.array]) -> None:
        tensors[QUERY][3, 4] = value

    edit(directory, change)
    with pytest.raises(CheckpointError, match=r"qkv_proj.* NaN or infinite"):
        load(directory)


def test_weights_of_an_integer_type_are_refused(directory: Path) -> None:
    edit(directory, lambda t: t.update({NORM: mx.zeros(64, mx.int32)}))
    with pytest.raises(CheckpointError, match="stored as I32, expected a float"):
        load(directory)


@pytest.mark.parametrize(
    ("part", "layers"), [("decoder", 1), ("decoder", 3), ("encoder", 1)]
)
def test_another_number_of_layers_than_the_config_says_is_refused(
    directory: Path, part: str, layers: int
) -> None:
    sizes = {f"{part}_layers": layers}
    params = TinyModel(**sizes).params()
    (directory / "params.json").write_text(json.dumps(params))
    with pytest.raises(CheckpointError, match=r"(unknown|lacks) tensor .*layers\.[12]"):
        load(directory)


@pytest.mark.parametrize("keep", [0, 4, 100, 20_000, -1])
def test_a_file_cut_short_is_refused(directory: Path, keep: int) -> None:
    path = directory / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load(directory)


def test_a_file_of_noise_is_refused(directory: Path) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    (directory / WEIGHTS).write_bytes(noise)
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        load(directory)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (WEIGHTS, CheckpointError),
        ("params.json", ConfigError),
        ("tekken.json", TokenizerError),
    ],
)
def test_a_missing_file_is_named(
    directory: Path, name: str, error: type[CheckpointError]
) -> None:
    (directory / name).unlink()
    with pytest.raises(error, match=f"{name} is missing"):
        load(directory)


def test_a_file_instead_of_a_directory_is_refused(directory: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file; name the directory"):
        load(directory / "params.json")


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "./none/here/x"])
def test_a_name_that_is_neither_directory_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"no directory .* no Hub id"):
        load(name)


def test_loading_asks_mlx_to_multiply_float32_as_float32(
    tiny_checkpoint_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLX_ENABLE_TF32", raising=False)
    load(tiny_checkpoint_dir)
    assert os.environ["MLX_ENABLE_TF32"] == "0"
    monkeypatch.setenv("MLX_ENABLE_TF32", "1")  # somebody who wants it
    load(tiny_checkpoint_dir)
    assert os.environ["MLX_ENABLE_TF32"] == "1"
