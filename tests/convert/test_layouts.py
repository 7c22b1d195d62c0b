"""Every layout loads, and converts to ours, without a number changing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import save_file

from benchmarks.full_size_checkpoint import FULL_SIZE
from convert.__main__ import convert
from tests.convert.directories import (
    MODEL,
    WRITERS,
    mlx_audio_config,
    mlx_audio_tensors,
    read_tensors,
    write_awni,
    write_mlx_audio,
)
from tests.tiny import TinyModel
from voxmlx import Checkpoint, demo, load
from voxmlx.checkpoint import DtypeName
from voxmlx.config import ModelConfig
from voxmlx.errors import CheckpointError, ConfigError
from voxmlx.layouts.configs import Precision, read_config

T = 20
MODEL_CONFIG = ModelConfig.from_params(MODEL.params())


def logits(checkpoint: Checkpoint) -> np.ndarray:
    """Logits [T, vocab] of seeded embeddings, encoder and adapter included."""
    rng = np.random.default_rng(3)
    model = checkpoint.model
    state = model.make_state(480)
    mel = mx.array(rng.standard_normal((1, 8 * T, 128)).astype(np.float32))
    audio = model.adapter(model.encoder.step(mel, state.encoder))
    tokens = mx.array(rng.integers(0, MODEL.vocab_size, (1, T)))
    out = model.decoder.step(audio + model.decoder.embed(tokens), state.decoder)
    return np.array(out[0].astype(mx.float32))


def weights(model: nn.Module) -> dict[str, mx.array]:
    flat: Any = tree_flatten(model.parameters())
    return dict(flat)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    directory = MODEL.write(tmp_path_factory.mktemp("reference") / "m")
    return load(directory, "float32")


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_logits_before_and_after_conversion(
    layout: str, tmp_path: Path, reference: Checkpoint
) -> None:
    directory = WRITERS[layout](tmp_path / "source")
    expected = logits(reference)
    np.testing.assert_array_equal(logits(load(directory, "float32")), expected)
    convert(str(directory), tmp_path / "ours", recipe="keep", dtype="float32")
    np.testing.assert_array_equal(logits(load(tmp_path / "ours", "float32")), expected)


@pytest.mark.parametrize(
    "recipe",
    ["q3", "q3-mixed", "q4", "q4-mixed", "q6", "q8", "mxfp4", "nvfp4", "mxfp8"],
)
def test_a_recipe_rounded_to_nearest_is_what_mlx_quantizes_the_network_to(
    recipe: str, tmp_path: Path, source: Path
) -> None:
    convert(
        str(source),
        tmp_path / "ours",
        recipe=recipe,
        dtype="float32",
        rounding="nearest",
    )
    found = load(tmp_path / "ours", "float32")
    expected = load(source, "float32").model
    modules = dict(found.model.named_modules())

    def same(path: str, _: nn.Module) -> bool | dict[str, int | str]:
        module = modules[path]
        if not isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            return False
        return {
            "bits": module.bits,
            "group_size": module.group_size,
            "mode": module.mode,
        }

    nn.quantize(expected, class_predicate=same)
    for name, array in weights(expected).items():
        assert mx.array_equal(array, weights(found.model)[name]), name


@pytest.mark.parametrize("write", [write_mlx_audio, write_awni])
@pytest.mark.parametrize("bits", [4, 6])
def test_a_quantized_directory_loads_as_it_is_and_converted(
    write: Callable[[Path, int], Path], bits: int, tmp_path: Path
) -> None:
    directory = write(tmp_path / "source", bits)
    direct = load(directory, "float32")
    modules = dict(direct.model.named_modules())

    def same(path: str, _: nn.Module) -> bool | dict[str, int | str]:
        chosen = isinstance(modules[path], nn.QuantizedLinear | nn.QuantizedEmbedding)
        return {"bits": bits, "group_size": 64} if chosen else False

    expected = load(MODEL.write(tmp_path / "plain"), "float32")
    nn.quantize(expected.model, class_predicate=same)
    assert isinstance(direct.model.decoder.embedding, nn.QuantizedEmbedding)
    np.testing.assert_array_equal(logits(direct), logits(expected))
    convert(str(directory), tmp_path / "ours", recipe="keep", dtype="float32")
    ours = load(tmp_path / "ours", "float32")
    np.testing.assert_array_equal(logits(ours), logits(direct))


def test_a_source_of_float32_that_is_kept_stays_float32(
    tmp_path: Path, reference: Checkpoint
) -> None:
    directory = MODEL.write(tmp_path / "source")
    convert(str(directory), tmp_path / "ours", recipe="keep")
    ours = load(tmp_path / "ours", "float32")
    np.testing.assert_array_equal(logits(ours), logits(reference))
    convert(str(directory), tmp_path / "q4", rounding="nearest")
    assert json.loads((tmp_path / "q4" / "config.json").read_text())["dtype"] == (
        "bfloat16"
    )


def test_a_source_of_float64_converts_and_is_else_one_line(tmp_path: Path) -> None:
    directory = MODEL.write(tmp_path / "source")
    path = directory / "consolidated.safetensors"
    wide = {
        name: np.array(array.astype(mx.float32), np.float64)
        for name, array in read_tensors(path).items()
    }
    save_file(wide, str(path))
    with pytest.raises(CheckpointError, match="is float64, which MLX cannot read; con"):
        load(directory, "float32")
    convert(str(directory), tmp_path / "ours", recipe="bf16")
    load(tmp_path / "ours", "float32")


def test_a_quantized_source_can_be_quantized_otherwise(tmp_path: Path) -> None:
    directory = write_mlx_audio(tmp_path / "source", 8)
    convert(
        str(directory),
        tmp_path / "ours",
        recipe="q4",
        dtype="float32",
        rounding="nearest",
    )
    embedding = load(tmp_path / "ours", "float32").model.decoder.embedding
    assert embedding.bits == 4
    stored = mlx_audio_tensors()["decoder.tok_embeddings.weight"]
    eight = mx.dequantize(*mx.quantize(stored, 64, 8), group_size=64, bits=8)
    assert mx.array_equal(embedding.weight, mx.quantize(eight, 64, 4)[0])


def test_bfloat16_is_the_type_unless_the_source_has_another_half(
    source: Path, tmp_path: Path
) -> None:
    assert convert(str(source), tmp_path / "a").dtype == "bfloat16"
    single = write_mlx_audio(tmp_path / "source", 4)
    assert convert(str(single), tmp_path / "b").dtype == "bfloat16"
    assert convert(str(single), tmp_path / "c", dtype="float32").dtype == "float32"


def test_an_embedding_left_in_halves_is_quantized_and_the_rest_kept(
    tmp_path: Path,
) -> None:
    directory = write_mlx_audio(tmp_path / "source", 4, skipped=("embedding",))
    in_halves = load(directory, embedding_bits=16).model.decoder.embedding
    assert isinstance(in_halves, nn.Embedding)
    convert(
        str(directory),
        tmp_path / "ours",
        recipe="q4",
        dtype="float32",
        rounding="nearest",
    )
    expected = load(write_mlx_audio(tmp_path / "whole", 4), "float32")
    found = weights(load(tmp_path / "ours", "float32").model)
    for name, array in weights(expected.model).items():
        assert mx.array_equal(array, found[name]), name


# What the default model's config.json says, beside its `quantization`.
PUBLISHED = {
    "model_type": "voxtral_realtime",
    "decoder": {
        "dim": 3072,
        "n_layers": 26,
        "head_dim": 128,
        "hidden_dim": 9216,
        "n_heads": 32,
        "n_kv_heads": 8,
        "vocab_size": 131072,
        "norm_eps": 1e-5,
        "rope_theta": 1e6,
        "sliding_window": 8192,
        "tied_embeddings": True,
        "ada_rms_norm_t_cond": True,
        "ada_rms_norm_t_cond_dim": 32,
    },
    "encoder_args": {
        "audio_encoding_args": {
            "sampling_rate": 16000,
            "frame_rate": 12.5,
            "num_mel_bins": 128,
            "hop_length": 160,
            "window_size": 400,
            "chunk_length_s": None,
            "global_log_mel_max": 1.5,
            "transcription_format": "streaming",
        },
        "dim": 1280,
        "n_layers": 32,
        "head_dim": 64,
        "hidden_dim": 5120,
        "n_heads": 32,
        "vocab_size": 131072,
        "n_kv_heads": 32,
        "use_biases": True,
        "use_cache": False,
        "rope_theta": 1e6,
        "causal": True,
        "norm_eps": 1e-5,
        "pos_embed": "rope",
        "max_source_positions": None,
        "ffn_type": "swiglu",
        "norm_type": "rms_norm",
        "sliding_window": 750,
        "downsample_factor": 4,
    },
    "quantization": {"group_size": 64, "bits": 4, "mode": "affine"},
}


def test_the_default_models_config_is_the_published_architecture() -> None:
    found, quantization = read_config(PUBLISHED)
    assert found == ModelConfig.from_params(FULL_SIZE.params())
    assert quantization.of("decoder.layers.0.attention.wq") == Precision(4, 64)


def test_the_default_models_kind_loads_and_its_halves_can_be_quantized(
    tmp_path: Path,
) -> None:
    # It has 406 matrices in 4 bits, of 711 tensors; embedding and adapter are float16,
    # and some tensors float32.
    kept = ("embedding", "audio_language_projection")
    directory = write_mlx_audio(tmp_path / "m", 4, skipped=kept)
    path = directory / "model.safetensors"
    tensors = {
        name: array.astype(mx.float16)
        if array.dtype != mx.uint32 and "conv" not in name
        else array
        for name, array in read_tensors(path).items()
    }
    mx.save_safetensors(str(path), tensors)
    index = {"weight_map": dict.fromkeys(tensors, path.name)}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))

    model = load(directory, "float32", embedding_bits=16).model
    assert isinstance(model.decoder.embedding, nn.Embedding)
    assert isinstance(model.adapter.linear1, nn.Linear)
    packed = model.decoder.layers[0].attention.qkv_proj
    assert (packed.bits, packed.group_size) == (4, 64)

    plan = convert(str(directory), tmp_path / "ours")
    assert plan.dtype == "float16"
    ours = load(tmp_path / "ours", "float32").model
    assert isinstance(ours.decoder.embedding, nn.QuantizedEmbedding)
    assert isinstance(ours.adapter.linear1, nn.QuantizedLinear)
    for name, array in weights(model).items():
        if name in weights(ours) and "embedding" not in name and "adapter" not in name:
            wanted = array.astype(mx.float16) if "conv" in name else array
            assert mx.array_equal(wanted, weights(ours)[name]), name


def test_a_source_left_beside_mlx_audios_result_is_not_taken_for_it(
    tmp_path: Path,
) -> None:
    directory = write_mlx_audio(tmp_path / "m", 4)
    expected = logits(load(directory, "float32"))
    source = TinyModel(seed=5, encoder_heads=8).write(tmp_path / "source")
    for name in ("params.json", "consolidated.safetensors"):
        shutil.copy(source / name, directory)
    assert load(directory).config == MODEL_CONFIG
    np.testing.assert_array_equal(logits(load(directory, "float32")), expected)


def test_mistrals_weights_are_taken_where_transformers_lie_beside_them(
    tmp_path: Path, reference: Checkpoint
) -> None:
    directory = MODEL.write(tmp_path / "m")
    (directory / "config.json").write_text('{"audio_config": {}}')
    (directory / "model.safetensors").write_bytes(b"not read")
    np.testing.assert_array_equal(logits(load(directory, "float32")), logits(reference))


def test_mlx_audios_config_may_be_silent_where_its_program_is(
    tmp_path: Path, reference: Checkpoint
) -> None:
    directory = write_mlx_audio(tmp_path / "m")
    path = directory / "config.json"
    content = json.loads(path.read_text())
    for key in ("causal", "use_biases", "downsample_factor"):
        del content["encoder_args"][key]
    for key in ("tied_embeddings", "ada_rms_norm_t_cond", "ada_rms_norm_t_cond_dim"):
        del content["decoder"][key]
    path.write_text(json.dumps(content))
    np.testing.assert_array_equal(logits(load(directory, "float32")), logits(reference))


def test_mlx_audios_config_beside_mistrals_names_loads(
    tmp_path: Path, reference: Checkpoint
) -> None:
    directory = MODEL.write(tmp_path / "m")
    (directory / "config.json").write_text(json.dumps(mlx_audio_config()))
    (directory / "consolidated.safetensors").rename(directory / "model.safetensors")
    (directory / "params.json").unlink()
    np.testing.assert_array_equal(logits(load(directory, "float32")), logits(reference))


@pytest.mark.parametrize("recipe", ["bf16", "q4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_holds_one_copy_of_the_weights(
    recipe: str, dtype: DtypeName, tmp_path: Path
) -> None:
    convert(demo.NAME, tmp_path / "ours", recipe=recipe)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model = load(tmp_path / "ours", dtype).model
    sizes = [array.nbytes for array in weights(model).values()]
    # A matrix beside the parts it was joined from, or its transpose; a little else.
    assert max(sizes) < sum(sizes) / 5
    extra = mx.get_peak_memory() - before - sum(sizes)
    assert extra < 2 * max(sizes) + 100_000


def test_parts_of_one_product_with_unlike_bits_are_refused(tmp_path: Path) -> None:
    directory = write_mlx_audio(tmp_path / "m", 4)
    path = directory / "model.safetensors"
    tensors = read_tensors(path)
    module = "decoder.layers.1.attention.wv"
    plain = mlx_audio_tensors()[f"{module}.weight"]
    parts = mx.quantize(plain, 64, 8)
    for suffix, part in zip(("weight", "scales", "biases"), parts, strict=True):
        tensors[f"{module}.{suffix}"] = part
    mx.save_safetensors(str(path), tensors)
    config = json.loads((directory / "config.json").read_text())
    config["quantization"][module] = {"group_size": 64, "bits": 8}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"layers\.1\.attention\.qkv_proj.*q4$"):
        load(directory)
    convert(str(directory), tmp_path / "ours", recipe="q4")
    load(tmp_path / "ours")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"decoder": None}, "'decoder' must be an object"),
        ({"format_version": 2}, "'format_version' is 2"),
        ({"quantization": {"bits": 7, "group_size": 64}}, "7 bits in groups of 64"),
        ({"quantization": {"bits": 4, "group_size": 64, "mode": "mxfp4"}}, "'mxfp4'"),
        ({"model_type": "llama"}, "describes a 'llama' model"),
    ],
)
def test_a_wrong_config_of_ours_is_refused_by_key(
    change: dict[str, object], error: str, tmp_path: Path, source: Path
) -> None:
    convert(str(source), tmp_path / "ours")
    path = tmp_path / "ours" / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(ConfigError, match=error):
        load(tmp_path / "ours")


@pytest.mark.parametrize("key", ["encoder", "dtype", "recipe", "quantization"])
def test_a_missing_key_of_our_config_is_named(
    key: str, tmp_path: Path, source: Path
) -> None:
    convert(str(source), tmp_path / "ours")
    path = tmp_path / "ours" / "config.json"
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=f"key '{key}' is missing"):
        load(tmp_path / "ours")


def test_a_missing_shard_is_named(tmp_path: Path, source: Path) -> None:
    convert(str(source), tmp_path / "ours", shard_bytes=30_000)
    shard = min((tmp_path / "ours").glob("model-*.safetensors"))
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name} is missing"):
        load(tmp_path / "ours")


def test_a_module_our_config_calls_quantized_must_be(
    tmp_path: Path, source: Path
) -> None:
    convert(str(source), tmp_path / "ours", recipe="bf16")
    path = tmp_path / "ours" / "config.json"
    content = json.loads(path.read_text())
    content["quantization"] = {"bits": 4, "group_size": 64}
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"lacks tensor .*(biases|scales)"):
        load(tmp_path / "ours")
