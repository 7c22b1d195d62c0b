"""A tiny checkpoint in every layout, renamed by hand and not by the tables."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tests.tiny import TinyModel

__all__ = [
    "MODEL",
    "WRITERS",
    "mlx_audio_tensors",
    "quantized",
    "read_tensors",
    "write_awni",
    "write_mlx_audio",
]

# Every row of every matrix but one is a whole number of groups of 64.
MODEL = TinyModel(encoder_heads=8)

_MM = "mm_streams_embeddings.embedding_module."
_WHISPER = _MM + "whisper_encoder."

Tensors = dict[str, mx.array]


def _renamed(rules: list[tuple[str, str]]) -> Tensors:
    """Mistral's tensors after the first rule that fits, convolutions MLX's way."""
    result: Tensors = {}
    for name, values in MODEL.tensors().items():
        value = mx.array(values)
        pattern, new = next((p, n) for p, n in rules if re.match(p, name))
        array = value.swapaxes(1, 2) if value.ndim == 3 else value
        result[re.sub(pattern, new, name, count=1)] = array
    return result


def mlx_audio_tensors() -> Tensors:
    """As mlx-audio names them."""
    projection = "audio_language_projection"
    renamed = _renamed(
        [
            (
                _WHISPER + r"conv_layers\.(\d)\.conv",
                r"encoder.conv_layers_\1_conv.conv",
            ),
            (_WHISPER + r"transformer\.layers", "encoder.transformer_layers"),
            (_WHISPER + r"transformer\.norm", "encoder.transformer_norm"),
            (_MM + projection + r"\.(\d)", rf"encoder.{projection}_\1"),
            (_MM + "tok_embeddings", "decoder.tok_embeddings"),
            (r"^layers\.", "decoder.layers."),
            (r"^norm\.", "decoder.norm."),
        ]
    )
    inner = [
        ("feed_forward.w", "feed_forward_w"),
        ("t_cond.0", "t_cond.ada_down"),
        ("t_cond.2", "t_cond.ada_up"),
    ]
    return {_replaced(name, inner): array for name, array in renamed.items()}


def awni_tensors() -> Tensors:
    """As awni/voxmlx names them."""
    renamed = _renamed(
        [
            (_WHISPER + r"conv_layers\.0\.conv", "encoder.conv1"),
            (_WHISPER + r"conv_layers\.1\.conv", "encoder.conv2"),
            (_WHISPER + r"transformer\.", "encoder."),
            (_MM + r"audio_language_projection\.0", "adapter.w_in"),
            (_MM + r"audio_language_projection\.2", "adapter.w_out"),
            (_MM + "tok_embeddings", "language_model.embed_tokens"),
            (r"^layers\.", "language_model.layers."),
            (r"^norm\.", "language_model.norm."),
        ]
    )
    inner = [
        ("attention.w", "attention."),
        ("feed_forward.w1", "mlp.gate_proj"),
        ("feed_forward.w2", "mlp.down_proj"),
        ("feed_forward.w3", "mlp.up_proj"),
        ("attention_norm", "attn_norm"),
        ("ada_rms_norm_t_cond.0", "ada_norm.linear_in"),
        ("ada_rms_norm_t_cond.2", "ada_norm.linear_out"),
    ]
    return {
        re.sub(
            r"attention\.([qkvo])\.", r"attention.\1_proj.", _replaced(name, inner)
        ): array
        for name, array in renamed.items()
    }


def _replaced(name: str, pairs: list[tuple[str, str]]) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name


def mlx_audio_config() -> dict[str, Any]:
    """As mlx-audio makes it of params.json."""
    params = MODEL.params()
    whisper = params["multimodal"]["whisper_model_args"]
    names = "dim n_layers head_dim hidden_dim n_heads n_kv_heads vocab_size norm_eps"
    names += " rope_theta sliding_window tied_embeddings"
    names += " ada_rms_norm_t_cond ada_rms_norm_t_cond_dim"
    return {
        "model_type": "voxtral_realtime",
        "decoder": {name: params[name] for name in names.split()},
        "encoder_args": {**whisper["encoder_args"], **whisper["downsample_args"]},
    }


def quantized(tensors: Tensors, bits: int, is_chosen: Callable[[str], bool]) -> Tensors:
    """Matrices whose module `is_chosen`, as MLX stores them in groups of 64."""
    result: Tensors = {}
    for name, array in tensors.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and array.ndim == 2 and is_chosen(module):
            parts = mx.quantize(array, group_size=64, bits=bits)
            for suffix, part in zip(("weight", "scales", "biases"), parts, strict=True):
                result[f"{module}.{suffix}"] = part
        else:
            result[name] = array
    return result


def read_tensors(path: Path) -> Tensors:
    """What a safetensors file holds, read."""
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    mx.eval(tensors)
    return tensors


def _write(directory: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "tekken.json").write_text(json.dumps(MODEL.tekken()), encoding="utf-8")
    mx.save_safetensors(str(directory / "model.safetensors"), tensors)
    return directory


def write_mlx_audio(
    directory: Path, bits: int | None = None, *, skipped: tuple[str, ...] = ()
) -> Path:
    """mlx-audio's layout; with `bits`, quantized as its recipe does.

    `skipped` are parts of paths it leaves alone besides: older versions left the
    embedding.
    """
    config, tensors = mlx_audio_config(), mlx_audio_tensors()
    if bits is not None:
        config["quantization"] = {"group_size": 64, "bits": bits, "mode": "affine"}
        config["quantization_config"] = config["quantization"]
        kept = ("norm", "ada_rms_norm", "conv_layers", *skipped)
        tensors = quantized(tensors, bits, lambda m: not any(s in m for s in kept))
    return _write(directory, config, tensors)


def write_awni(directory: Path, bits: int | None = None) -> Path:
    """awni/voxmlx's layout; with `bits`, all with whole groups is quantized."""
    config, tensors = MODEL.params(), awni_tensors()
    if bits is not None:
        config["quantization"] = {"group_size": 64, "bits": bits}
        tensors = quantized(tensors, bits, lambda m: "linear_out" not in m)
    return _write(directory, config, tensors)


def write_transformers(directory: Path) -> Path:
    """transformers' layout, by its own save_pretrained."""
    pytest.importorskip("torch", reason="parity needs torch: install .[parity]")
    pytest.importorskip("transformers", reason="parity needs it: install .[parity]")
    # Local import: torch takes seconds.
    from tests.reference import Reference

    source = MODEL.write(directory.with_name(directory.name + ".mistral"))
    Reference(source).model.save_pretrained(directory)
    shutil.copy(source / "tekken.json", directory)
    return directory


WRITERS: dict[str, Callable[[Path], Path]] = {
    "mistral": MODEL.write,
    "mlx-audio": write_mlx_audio,
    "awni": write_awni,
    "transformers": write_transformers,
}
