"""Weights that are finite numbers, but too large: one line, and nothing half-made."""

import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from convert import sensitivity
from convert.__main__ import main
from convert.affine import dequantized
from convert.budget import _divergence  # pyright: ignore[reportPrivateUsage]
from convert.search import search
from tests.convert.directories import read_tensors
from tests.sounds import speech_like
from voxmlx.layouts.configs import Precision

NAMES = {
    "embedding": "mm_streams_embeddings.embedding_module.tok_embeddings.weight",
    "query": "layers.0.attention.wq.weight",
    "norm": "norm.weight",
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    soundfile.write(path, speech_like(16_000), 16_000, subtype="PCM_16")
    return str(path)


@pytest.fixture
def damaged(source: Path, tmp_path: Path) -> Callable[[str, float], str]:
    """Makes a source whose matrix has numbers of one size, of either sign, in a row."""

    def damage(name: str, size: float) -> str:
        directory = tmp_path / "source"
        shutil.copytree(source, directory)
        path = directory / "consolidated.safetensors"
        tensors = read_tensors(path)
        rows = np.array(tensors[NAMES[name]].astype(mx.float32))
        n = rows.shape[-1]
        rows.reshape(-1, n)[0] = np.where(np.arange(n) % 2, -size, size)
        tensors[NAMES[name]] = mx.array(rows).astype(mx.bfloat16)
        mx.save_safetensors(str(path), tensors)
        return str(directory)

    return damage


def refused(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert expected in line
    destination = Path(arguments[1])
    assert not destination.exists()
    assert not destination.with_name(destination.name + ".partial").exists()


def test_calibration_that_the_source_answers_with_no_numbers_is_one_line(
    damaged: Callable[[str, float], str],
    tmp_path: Path,
    sound: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [damaged("query", 1e38), str(tmp_path / "ours"), "--recipe", "q3"]
    arguments += ["--rounding", "gptq", "--calibrate", sound]
    refused(arguments, "logits that are NaN, infinite", capsys)


@pytest.mark.parametrize("option", ["--verify", "--calibrate"])
@pytest.mark.parametrize(("name", "size"), [("query", 1e38), ("norm", 1e37)])
def test_figures_of_logits_that_are_no_numbers_are_refused(
    option: str,
    name: str,
    size: float,
    damaged: Callable[[str, float], str],
    tmp_path: Path,
    sound: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [damaged(name, size), str(tmp_path / "ours"), option, sound]
    more = ["--budget", "1MB"] if option == "--calibrate" else ["--recipe", "bf16"]
    refused([*arguments, *more], "logits that are NaN, infinite", capsys)


def test_the_sensitivity_of_logits_that_are_no_numbers_is_refused(
    damaged: Callable[[str, float], str],
    sound: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sensitivity.main([damaged("norm", 1e37), "--audio", sound]) == 1
    seen = capsys.readouterr()
    assert not seen.out
    assert "logits that are NaN, infinite" in seen.err


@pytest.mark.parametrize(
    ("recipe", "size", "expected"),
    [
        ("q4", 3e38, "holds NaN or infinite weights"),
        ("mxfp4", 3e38, "mxfp4 stores at most 1.7014e+38"),
        ("mxfp8", 3e38, "mxfp8 stores at most 1.7014e+38"),
        ("nvfp4", 3e3, "has a weight of 3.01e+03, nvfp4 stores at most 2688"),
        ("fp16", 1e5, "float16 too narrow for it: try bfloat16"),
    ],
)
def test_a_weight_that_a_format_cannot_store_is_refused(
    recipe: str,
    size: float,
    expected: str,
    damaged: Callable[[str, float], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [damaged("query", size), str(tmp_path / "ours"), "--recipe", recipe]
    if recipe == "q4":
        arguments += ["--rounding", "nearest"]
    refused(arguments, expected, capsys)


def test_a_group_whose_sums_are_infinite_warns_of_nothing() -> None:
    # A warning of NumPy's would be a line on stderr; here it is an error.
    rows = np.full((1, 64), 3e38, np.float32)
    found = search(rows, Precision(8, 64), "bfloat16")
    np.testing.assert_allclose(dequantized(found), rows, rtol=0.01)


def test_a_divergence_of_far_choices_is_a_number() -> None:
    p = np.log(np.array([[1 - 1e-6, 1e-6]], np.float32))
    far = np.array([[-200.0, 0.0]], np.float32)
    assert _divergence(far, far[:, ::-1])[0] == pytest.approx(200)
    assert _divergence(far, p)[0] == pytest.approx(-np.log(1e-6), rel=1e-3)
    assert _divergence(p, far)[0] == pytest.approx(200, rel=1e-3)
    assert _divergence(p, p)[0] == 0
