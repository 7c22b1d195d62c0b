"""Formats without biases: read, written, and refused by name where MLX has none."""

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest

from convert.__main__ import convert
from voxmlx import load
from voxmlx.errors import CheckpointError, ConfigError


@pytest.fixture(scope="module", params=["mxfp4", "nvfp4", "mxfp8"])
def made(
    request: pytest.FixtureRequest,
    source: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    directory = tmp_path_factory.mktemp("modes") / request.param
    convert(str(source), directory, recipe=request.param)
    return directory


def test_a_model_of_a_mode_loads_and_keeps_the_networks_type(made: Path) -> None:
    model = load(made, "float16").model
    assert model.decoder.embedding.mode == made.name
    assert model.decoder.embed(mx.array([[1]])).dtype == mx.float16
    assert json.loads((made / "config.json").read_text("utf-8"))["rounding"] is None


def test_a_model_of_a_mode_is_kept_byte_for_byte(made: Path, tmp_path: Path) -> None:
    convert(str(made), tmp_path / "kept", recipe="keep")
    (shard,) = made.glob("model-*.safetensors")
    assert (tmp_path / "kept" / shard.name).read_bytes() == shard.read_bytes()


def test_a_model_of_a_mode_can_be_quantized_otherwise(
    made: Path, tmp_path: Path
) -> None:
    convert(str(made), tmp_path / "q8", recipe="q8")
    assert load(tmp_path / "q8", "float32").model.decoder.embedding.bits == 8


def test_a_mode_that_mlx_cannot_run_is_refused_by_name(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("[quantize] no such kernel")

    monkeypatch.setattr(nn, "QuantizedLinear", refuse)
    with pytest.raises(CheckpointError, match=f"mode {made.name}, which MLX cannot"):
        load(made)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"bits": 4, "group_size": 32, "mode": "mxfp5"}, "expected one of affine"),
        ({"bits": 4, "group_size": 64, "mode": "mxfp4"}, "4 bits in groups of 64"),
        ({"bits": 8, "group_size": 16, "mode": "nvfp4"}, "8 bits in groups of 16"),
    ],
)
def test_what_no_mode_has_is_refused(
    entry: dict[str, object], expected: str, made: Path, tmp_path: Path
) -> None:
    content = json.loads((made / "config.json").read_text("utf-8"))
    content["quantization"] = entry
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        load(tmp_path)
