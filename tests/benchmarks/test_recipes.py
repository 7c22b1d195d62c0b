"""The table of recipes is of certificates that convert has written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile

from benchmarks import convert_kills, full_size_checkpoint, recipes, search_gain
from benchmarks.held_out import write_held_out
from convert import disk
from convert.quality import read_sounds
from tests.convert.directories import MODEL
from tests.held_out import held_out
from tests.sounds import speech_like


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_every_recipe_named_gets_a_row_and_the_figures_of_its_certificate(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("whisper_normalizer", reason="install voxmlx-realtime[convert]")
    sentence = min(held_out(), key=lambda s: len(s.samples))
    sound = tmp_path / "said.wav"
    soundfile.write(sound, sentence.samples, 16_000, subtype="PCM_16")
    sound.with_suffix(".txt").write_text(sentence.text)
    command = [
        "--audio",
        str(sound),
        "--recipe",
        "bf16",
        "q4",
        "--rounding",
        "nearest",
        "control",
    ]
    assert recipes.main(command) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    exact, nearest, control = json.loads(lines[-1])["recipes"]
    assert (exact["recipe"], exact["rounding"]) == ("bf16", None)
    assert (nearest["rounding"], control["rounding"]) == ("nearest", "control")
    assert exact["mean_kl"] == 0 < nearest["mean_kl"] != control["mean_kl"] > 0
    assert nearest["n_bytes"] == control["n_bytes"]
    row, other = (line for line in lines if line.startswith("| `q4`"))
    assert "| control |" in other
    assert f"| {nearest['mean_kl']:.2e} |" in row
    assert f"| {nearest['wer']:.2%} |" in row
    assert row.count("|") == len(recipes.COLUMNS) + 1


@pytest.fixture
def sounds(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "1.wav", tmp_path / "2.wav"]
    for seed, path in enumerate(paths):
        samples = speech_like(16_000, seed=seed)
        soundfile.write(path, samples, 16_000, subtype="PCM_16")
    return [str(path) for path in paths]


def test_a_row_kept_of_other_sounds_is_refused_and_not_taken(
    sounds: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(MODEL.write(tmp_path / "model"))
    command = ["--model", model, "--recipe", "bf16", "--keep", str(tmp_path / "rows")]
    assert recipes.main([*command, "--audio", sounds[0]]) == 0
    first = capsys.readouterr().out
    assert recipes.main([*command, "--audio", sounds[0]]) == 0
    assert capsys.readouterr().out == first
    assert recipes.main([*command, "--audio", *sounds]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "bf16-None.json is of other inputs (sounds); remove it" in line


@pytest.mark.parametrize(
    ("command", "arguments", "status", "expected"),
    [
        (recipes.main, ["--audio", "none.wav"], 1, "none.wav does not exist"),
        (recipes.main, ["--every", "0"], 2, "not a whole number from 1"),
        (recipes.main, ["--keep", "{file}", "--audio", "{sound}"], 1, "cannot be wri"),
        (convert_kills.main, ["demo", "{file}"], 1, "cannot be written: File exists"),
        (convert_kills.main, ["a", "b", "--kills", "-1"], 2, "not a whole number"),
        (search_gain.main, ["--rows", "0"], 2, "not a whole number from 1"),
        (full_size_checkpoint.main, ["{file}"], 1, "cannot be written: File exists"),
    ],
)
def test_what_a_benchmark_of_convert_cannot_do_is_one_line(
    command: Callable[[list[str]], int | None],
    arguments: list[str],
    status: int,
    expected: str,
    sounds: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("1")
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: Usage(0, 0, 10**12))
    places = {"file": tmp_path / "file", "sound": sounds[0]}
    try:
        found = command([text.format(**places) for text in arguments])
    except SystemExit as ended:
        found = ended.code
    assert found == status
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert expected in line


def test_the_test_sentences_become_sounds_with_their_words_beside_them(
    tmp_path: Path,
) -> None:
    sounds = read_sounds(write_held_out(tmp_path / "sounds")[:3])
    for sound, sentence in zip(sounds, held_out(), strict=False):
        assert sound.transcript == f"{sentence.text}\n"
        np.testing.assert_allclose(sound.samples, sentence.samples, atol=1 / 32768)
