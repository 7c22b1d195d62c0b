"""What --verify prints as it goes, and how sure its error rates are."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from convert import model_reading, products
from convert.__main__ import convert, main
from convert.word_errors import WordErrors, word_errors
from tests.sounds import speech_like
from voxmlx import load


def test_a_row_per_sound_a_total_and_one_line_of_json_are_printed(
    capsys: pytest.CaptureFixture[str], source: Path, tmp_path: Path
) -> None:
    names = ["one.wav", "two.wav"]
    for i, name in enumerate(names):
        sound = speech_like(16_000) * np.float32(0.9 - i / 2)
        soundfile.write(tmp_path / name, sound, 16_000)
    sounds = [str(tmp_path / name) for name in names]
    arguments = [str(source), str(tmp_path / "ours"), "--recipe", "q3"]
    assert main([*arguments, "--verify", *sounds]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["sound", *names, "all"]
    content = json.loads(lines[4])
    written = json.loads((tmp_path / "ours" / "quality.json").read_text("utf-8"))
    assert content == {k: v for k, v in written.items() if k != "sounds"}
    assert (content["recipe"], content["rounding"]) == ("q3", "search")
    assert content["total"]["p99_kl"] >= content["total"]["mean_kl"] > 0
    assert f"{content['total']['mean_kl']:.2e}" in lines[3]


@pytest.mark.parametrize("recipe", ["q4", "nvfp4"])
def test_dequantized_matrices_give_the_same_logits(
    recipe: str, source: Path, tmp_path: Path
) -> None:
    convert(str(source), tmp_path / "ours", recipe=recipe)
    checkpoint = load(tmp_path / "ours", "float32")
    samples = speech_like(16_000 * 4)
    ids = np.arange(8, dtype=np.int32)
    before = np.concatenate(list(model_reading.forced_logits(checkpoint, samples, ids)))
    n_before = sum(v.size for k, v in modules(checkpoint.model) if k == "scales")
    products.dequantize(checkpoint.model)
    assert n_before > 0
    assert not [k for k, _ in modules(checkpoint.model) if k == "scales"]
    after = np.concatenate(list(model_reading.forced_logits(checkpoint, samples, ids)))
    np.testing.assert_allclose(after, before, atol=2e-3)


def modules(model: object) -> list[tuple[str, mx.array]]:
    found = list(model.modules())  # type: ignore[attr-defined]
    return [(k, v) for m in found for k, v in m.items() if isinstance(v, mx.array)]


def test_errors_are_counted_sound_by_sound() -> None:
    pytest.importorskip("whisper_normalizer", reason="install voxmlx-realtime[convert]")
    pairs = [
        ("One, two!", "one to"),
        ("three", "three four five"),
        ("", "six"),
        ("a", ""),
    ]
    errors = word_errors(pairs)
    assert errors == WordErrors((1, 2, 1, 1), (2, 1, 0, 1))
    assert errors.rate == 5 / 4


def test_the_interval_holds_the_rate_and_narrows_with_more_sounds() -> None:
    few = WordErrors((1, 0, 0, 2) * 5, (6,) * 20)
    many = WordErrors((1, 0, 0, 2) * 50, (6,) * 200)
    assert few.rate == many.rate == 0.125
    widths: list[float] = []
    for errors in (few, many):
        interval = errors.interval()
        assert interval is not None
        assert interval[0] < 0.125 < interval[1]
        widths.append(interval[1] - interval[0])
        assert errors.interval() == interval
    assert widths[1] < widths[0] / 2.5
    # The spread of a mean of 20: 1.96 * 0.829 / 6 / sqrt(20) on either side.
    assert widths[0] == pytest.approx(2 * 1.96 * 0.829 / 6 / 20**0.5, rel=0.15)


def test_where_nothing_was_said_there_is_no_rate() -> None:
    assert WordErrors((1,), (0,)).rate is None
    assert WordErrors((1,), (0,)).interval() is None
