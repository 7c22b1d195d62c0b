"""The table of recipes is of certificates that convert has written."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import recipes
from benchmarks.held_out import write_held_out
from convert.quality import read_sounds
from tests.held_out import held_out


def test_every_recipe_named_gets_a_row_and_the_figures_of_its_certificate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("whisper_normalizer", reason="install voxmlx-realtime[convert]")
    sentence = min(held_out(), key=lambda s: len(s.samples))
    sound = tmp_path / "said.wav"
    soundfile.write(sound, sentence.samples, 16_000, subtype="PCM_16")
    sound.with_suffix(".txt").write_text(sentence.text)
    command = [
        "recipes",
        "--audio",
        str(sound),
        "--recipe",
        "bf16",
        "q4",
        "--rounding",
        "nearest",
        "control",
    ]
    monkeypatch.setattr(sys, "argv", command)
    recipes.main()
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


def test_the_test_sentences_become_sounds_with_their_words_beside_them(
    tmp_path: Path,
) -> None:
    sounds = read_sounds(write_held_out(tmp_path / "sounds")[:3])
    for sound, sentence in zip(sounds, held_out(), strict=False):
        assert sound.transcript == f"{sentence.text}\n"
        np.testing.assert_allclose(sound.samples, sentence.samples, atol=1 / 32768)
