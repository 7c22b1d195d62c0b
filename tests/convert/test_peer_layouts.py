"""The names and shapes that `--layout` writes are those of the other program."""

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from convert.__main__ import convert, main
from convert.peer_layouts import LayoutName
from convert.quality import Sound
from tests.convert.directories import (
    MODEL,
    mlx_audio_config,
    read_tensors,
    write_awni,
    write_mlx_audio,
)
from tests.sounds import speech_like
from voxmlx import load

PEERS: list[tuple[LayoutName, Callable[..., Path]]] = [
    ("mlx-audio", write_mlx_audio),
    ("awni", write_awni),
]


def shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape, of all shards."""
    return {
        name: array.shape
        for path in directory.glob("model*.safetensors")
        for name, array in read_tensors(path).items()
    }


@pytest.mark.parametrize(("layout", "write"), PEERS)
@pytest.mark.parametrize("recipe", ["q4", "bf16"])
def test_names_and_shapes_are_those_that_the_peer_writes(
    layout: LayoutName,
    write: Callable[..., Path],
    recipe: str,
    source: Path,
    tmp_path: Path,
) -> None:
    theirs = write(tmp_path / "theirs", 4 if recipe == "q4" else None)
    convert(str(source), tmp_path / "ours", recipe=recipe, layout=layout)
    assert shapes(tmp_path / "ours") == shapes(theirs)
    config, expected = (
        json.loads((tmp_path / name / "config.json").read_text())
        for name in ("ours", "theirs")
    )
    shared = {"group_size": 64, "bits": 4}
    if recipe == "bf16":
        assert "quantization" not in config
    else:
        assert config["quantization"].items() >= shared.items()
    if layout == "awni":
        # It keeps params.json; sizes that it never reads may differ.
        assert expected.keys() - {"quantization"} <= config.keys()
    else:
        assert config["model_type"] == mlx_audio_config()["model_type"]
    index = json.loads((tmp_path / "ours/model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == shapes(tmp_path / "ours").keys()


@pytest.mark.parametrize(
    ("layout", "recipe"),
    [("mlx-audio", "q4-mixed"), ("mlx-audio", "mxfp8"), ("awni", "q6")],
)
def test_the_weights_are_those_of_our_own_layout(
    layout: LayoutName, recipe: str, source: Path, tmp_path: Path
) -> None:
    convert(str(source), tmp_path / "ours", recipe=recipe)
    convert(str(source), tmp_path / "theirs", recipe=recipe, layout=layout)
    ours, theirs = (
        dict(tree_flatten(load(tmp_path / name, "bfloat16").model.parameters()))
        for name in ("ours", "theirs")
    )
    # awni/voxmlx has the delay's matrices quantized too.
    compared = [name for name in ours if ".ada." not in name]
    assert layout == "awni" or len(compared) < len(ours) == len(theirs)
    for name in compared if layout == "awni" else ours:
        a, b = (np.array(x[name].view(mx.uint8)) for x in (ours, theirs))
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_recipe_of_several_bits_is_refused_for_awni_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["a", str(tmp_path / "b"), "--layout", "awni", "--recipe", "q4-mixed"])
    assert raised.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "one number of bits" in line
    assert "--layout mlx-audio" in line


def test_what_awni_cannot_keep_is_one_line_and_leaves_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(str(source), tmp_path / "mixed", recipe="q4-mixed")
    capsys.readouterr()
    arguments = [str(tmp_path / "mixed"), str(tmp_path / "b"), "--recipe", "keep"]
    assert main([*arguments, "--layout", "awni"]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "4 bits in groups of 64 (affine), 5 bits" in line
    assert {path.name for path in tmp_path.iterdir()} == {"mixed"}


def test_gptq_writes_every_matrix_that_awni_expects(
    source: Path, tmp_path: Path
) -> None:
    sound = Sound("s", speech_like(16_000), None)
    convert(
        str(source),
        tmp_path / "ours",
        rounding="gptq",
        calibration=[sound],
        layout="awni",
    )
    assert shapes(tmp_path / "ours") == shapes(write_awni(tmp_path / "theirs", 4))
    assert load(tmp_path / "ours").config.decoder.vocab_size == MODEL.vocab_size
