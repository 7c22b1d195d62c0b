"""params.json is complete or an error."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import TinyModel
from voxmlx.config import ModelConfig, delay_tokens
from voxmlx.errors import ConfigError

PARAMS = TinyModel().params()

SECTIONS: dict[str, tuple[str, ...]] = {
    "root": (),
    "multimodal": ("multimodal",),
    "whisper": ("multimodal", "whisper_model_args"),
    "encoder": ("multimodal", "whisper_model_args", "encoder_args"),
    "downsample": ("multimodal", "whisper_model_args", "downsample_args"),
    "audio": (
        "multimodal",
        "whisper_model_args",
        "encoder_args",
        "audio_encoding_args",
    ),
}


def section(params: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path:
        params = params[key]
    return params


def every_key() -> list[tuple[str, str]]:
    return [
        (name, key) for name, path in SECTIONS.items() for key in section(PARAMS, path)
    ]


@pytest.mark.parametrize(("name", "key"), every_key())
def test_a_missing_key_is_named(name: str, key: str) -> None:
    params = copy.deepcopy(PARAMS)
    del section(params, SECTIONS[name])[key]
    with pytest.raises(ConfigError, match=f"'{key}' is missing"):
        ModelConfig.from_params(params)


@pytest.mark.parametrize("name", SECTIONS)
def test_an_unknown_key_is_named(name: str) -> None:
    params = copy.deepcopy(PARAMS)
    section(params, SECTIONS[name])["surprise"] = 1
    with pytest.raises(ConfigError, match="unknown key 'surprise'"):
        ModelConfig.from_params(params)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("root", "dim", 0),
        ("root", "dim", 64.0),
        ("root", "dim", True),
        ("root", "head_dim", 15),
        ("root", "n_heads", 7),
        ("root", "norm_eps", "small"),
        ("root", "rope_theta", -1),
        ("root", "causal", False),
        ("root", "causal", 1),
        ("root", "tied_embeddings", False),
        ("encoder", "ffn_type", "gelu"),
        ("encoder", "use_biases", False),
        ("audio", "sampling_rate", 8000),
        ("audio", "transcription_format", "instruct"),
        ("downsample", "downsample_factor", 2),
    ],
)
def test_an_impossible_value_is_named(name: str, key: str, value: Any) -> None:
    params = copy.deepcopy(PARAMS)
    section(params, SECTIONS[name])[key] = value
    with pytest.raises(ConfigError, match=key):
        ModelConfig.from_params(params)


def test_the_real_models_figures_are_read() -> None:
    model = TinyModel(decoder_dim=3072, decoder_heads=32, decoder_kv_heads=8)
    config = ModelConfig.from_params(model.params())
    assert config.decoder.dim == 3072
    assert config.decoder.n_kv_heads == 8
    assert config.decoder.ada_dim == 32
    assert config.mel_frames_per_audio_token == 8


@pytest.mark.parametrize("content", ["", "[1]", "\xff"])
def test_an_unreadable_file_is_one_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "params.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"params\.json"):
        ModelConfig.from_params_file(path)


def test_a_missing_file_says_what_a_model_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"consolidated\.safetensors and tekken"):
        ModelConfig.from_params_file(tmp_path / "params.json")


def test_a_written_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "params.json"
    path.write_text(json.dumps(PARAMS))
    assert ModelConfig.from_params_file(path) == ModelConfig.from_params(PARAMS)


def test_delays_count_audio_tokens() -> None:
    assert [delay_tokens(ms) for ms in (80, 480, 1200, 2400)] == [1, 6, 15, 30]
