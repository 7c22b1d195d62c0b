"""GPTQ changes a product's output least, by what the network itself has seen."""

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import soundfile

from convert import model_reading, quality
from convert.__main__ import convert, main
from convert.affine import Rounded, dequantized, stored
from convert.calibration import Calibration, read_calibration
from convert.gptq import Inputs, gptq
from convert.refinement import refined
from convert.search import search
from tests.convert.interrupted import SHARD_BYTES, contents, killed_at
from tests.sounds import speech_like
from voxmlx import load
from voxmlx.decoding.loop import greedy_ids
from voxmlx.errors import AudioError
from voxmlx.layouts import open_model
from voxmlx.layouts.configs import Precision
from voxmlx.model import layer


@pytest.fixture(scope="module")
def sound() -> quality.Sound:
    return quality.Sound("speech", speech_like(4 * 16_000), None)


@pytest.mark.parametrize(("bits", "most"), [(2, 0.8), (3, 0.6), (4, 0.6), (8, 0.8)])
def test_the_output_changes_less_than_by_a_search_alone(bits: int, most: float) -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((128, 128)) * 0.5 ** np.arange(128)[:, None] ** 0.3
    x = (rng.standard_normal((2000, 128)) @ mixing).astype(np.float32)
    rows = rng.standard_normal((96, 128)).astype(np.float32)
    precision = Precision(bits, 64)
    inputs = Inputs.of(mx.array(x.T @ x))

    def error(rounded: Rounded) -> float:
        return float(((x @ (dequantized(rounded) - rows).T) ** 2).sum())

    found = gptq(rows, inputs, precision, "bfloat16")
    assert found.codes.max() <= 2**bits - 1
    assert error(found) < most * error(search(rows, precision, "bfloat16"))


def test_the_factor_is_the_upper_one_of_the_inverse() -> None:
    x = np.random.default_rng(1).standard_normal((50, 24)).astype(np.float32)
    hessian = x.T @ x
    inputs = Inputs.of(mx.array(hessian))
    scaled = hessian / np.trace(hessian) * 24 + 0.01 * np.eye(24)
    np.testing.assert_allclose(np.tril(inputs.factor, -1), 0, atol=1e-6)
    inverse = inputs.factor.T @ inputs.factor
    np.testing.assert_allclose(inverse @ scaled, np.eye(24), atol=1e-3)
    np.testing.assert_allclose(inputs.hessian, scaled, rtol=1e-4, atol=1e-5)


def test_a_product_that_has_seen_nothing_can_be_rounded() -> None:
    rows = np.random.default_rng(2).standard_normal((8, 64)).astype(np.float32)
    found = gptq(rows, Inputs.of(mx.zeros((64, 64))), Precision(4, 64), "bfloat16")
    assert np.abs(dequantized(found) - rows).max() < 0.5


def test_sums_taken_layer_by_layer_are_those_of_the_whole_network(
    source: Path, sound: quality.Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load(source, "float32")
    model = checkpoint.model
    names = {id(module): path for path, module in model.named_modules()}
    sums: dict[str, np.ndarray] = {}
    real = layer.matmul

    def watched(linear: nn.Module, x: mx.array) -> mx.array:
        flat = np.array(x.reshape(-1, x.shape[-1]))
        path = names[id(linear)]
        sums[path] = sums.get(path, 0) + flat.T @ flat
        return real(linear, x)

    samples = np.pad(sound.padded_by(model.left_pad_tokens), (0, model.mel.lookahead))
    ids = greedy_ids(model, samples[None], model.make_state(480))
    with monkeypatch.context() as patch:
        patch.setattr(layer, "matmul", watched)
        patch.setattr(layer, "product", lambda linear: linear)
        list(model_reading.forced_logits(checkpoint, samples, ids[ids >= 0]))
    calibration = Calibration(open_model(source), [sound])
    assert len(sums) == 4 * 4
    for path in sorted(sums, key=lambda path: (path.startswith("decoder"), path)):
        found = np.array(calibration.hessian(path))
        scale = np.abs(found).max()
        np.testing.assert_allclose(found, sums[path], atol=2e-3 * scale, err_msg=path)


def test_a_run_after_a_killed_one_gives_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    sound: quality.Sound,
) -> None:
    def run(name: str) -> None:
        convert(
            str(source),
            tmp_path / name,
            rounding="gptq",
            calibration=[sound],
            shard_bytes=SHARD_BYTES,
        )

    run("ours")
    whole = contents(tmp_path / "ours")
    assert b'"rounding": "gptq"' in whole["config.json"]
    load(tmp_path / "ours")
    for n in (40, 60):
        with killed_at(monkeypatch, n):
            run("again")
    run("again")
    # The card and its digest hold the directory's name.
    again = contents(tmp_path / "again")
    assert {k: v for k, v in again.items() if k.startswith(("model", "config"))} == {
        k: v for k, v in whole.items() if k.startswith(("model", "config"))
    }


def test_other_sound_is_another_conversion(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for i in range(2):
        samples = speech_like(16_000) * np.float32(1 - i / 2)
        soundfile.write(tmp_path / f"{i}.wav", samples, 16_000)
    arguments = [str(source), str(tmp_path / "ours"), "--rounding", "gptq"]
    with killed_at(monkeypatch, 100):
        main([*arguments, "--calibrate", str(tmp_path / "0.wav")])
    assert main([*arguments, "--calibrate", str(tmp_path / "1.wav")]) == 1
    assert "beginning of another conversion" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "n_lines"), [(2, 1), (61, 0)])
def test_a_model_made_of_too_little_sound_comes_with_one_line_that_says_so(
    seconds: int,
    n_lines: int,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sounds = [quality.Sound("s", np.zeros(seconds * 16_000, np.float32), None)]
    monkeypatch.setattr("convert.__main__.read_calibration", lambda _: sounds)
    monkeypatch.setattr("convert.__main__.convert", lambda *_, **__: None)
    arguments = [str(source), str(tmp_path / "ours"), "--rounding", "gptq"]
    assert main([*arguments, "--calibrate", "s.wav"]) == 0
    line = capsys.readouterr().err
    assert line.count("\n") == n_lines
    assert ("heard 2 s of sound" in line) == bool(n_lines)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rounding", "gptq"], "add --calibrate FOLDER"),
        (["--rounding", "dwq"], "--rounding dwq needs sound"),
        (["--calibrate", "demo"], "is for --rounding gptq or dwq and --budget"),
        (["--rounding", "search", "--calibrate", "demo"], "is for --rounding gptq"),
        (["--recipe", "bf16", "--rounding", "search"], "bf16 rounds nothing"),
        (["--recipe", "keep", "--rounding", "nearest"], "keep rounds nothing"),
        (
            ["--recipe", "mxfp4", "--rounding", "search"],
            "mxfp4 has one way to round only",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_and_status_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["a", "b", *arguments])
    assert raised.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert expected in text


def test_a_folder_gives_all_of_its_sounds_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.wav", "a.flac"):
        soundfile.write(tmp_path / name, speech_like(16_000), 16_000)
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    assert [s.name for s in read_calibration([tmp_path])] == ["a.flac", "b.wav"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="holds no sound"):
        read_calibration([tmp_path / "empty"])


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_looking_back_never_raises_the_error_of_a_row(bits: int) -> None:
    rng = np.random.default_rng(6)
    mixing = rng.standard_normal((128, 128)) * 0.5 ** np.arange(128)[:, None] ** 0.3
    x = (rng.standard_normal((2000, 128)) @ mixing).astype(np.float32)
    rows = rng.standard_normal((40, 128)).astype(np.float32)
    rows[3], rows[4, 64:] = 0, rows[4, 64]
    precision = Precision(bits, 64)
    inputs = Inputs.of(mx.array(x.T @ x))

    def errors(rounded: Rounded) -> np.ndarray:
        off = (dequantized(rounded) - rows).astype(np.float64)
        return ((off @ inputs.hessian) * off).sum(1)

    before = search(rows, precision, "bfloat16")
    found = refined(rows, before, inputs.hessian, precision, "bfloat16")
    again = refined(rows, found, inputs.hessian, precision, "bfloat16")
    noise = 1e-5 * errors(before).max()
    assert (errors(found) <= errors(before) + noise).all()
    assert errors(found).sum() < 0.7 * errors(before).sum()
    assert (errors(again) <= errors(found) + noise).all()
    assert found.codes.max() <= 2**bits - 1
    for part in (found.scales, found.biases):
        np.testing.assert_array_equal(part, stored(part, "bfloat16"))
