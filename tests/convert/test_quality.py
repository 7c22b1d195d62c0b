"""The certificate says what the bits cost, and nothing when they cost nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from convert import quality
from convert.__main__ import main
from convert.sensitivity import GROUPS, rank
from tests.sounds import speech_like
from voxmlx import load
from voxmlx.layouts.configs import Precision


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    soundfile.write(path, speech_like(2 * 16_000), 16_000, subtype="PCM_16")
    return path


def verified(source: Path, directory: Path, sound: Path, recipe: str) -> dict:
    arguments = [str(source), str(directory), "--recipe", recipe]
    assert main([*arguments, "--verify", str(sound)]) == 0
    return json.loads((directory / "quality.json").read_text())


def test_an_exact_copy_costs_nothing(source: Path, tmp_path: Path, sound: Path) -> None:
    content = verified(source, tmp_path / "ours", sound, "bf16")
    total = content["total"]
    assert total["token_agreement"] == total["free_token_agreement"] == 1
    assert total["max_logit_error"] == total["mean_kl"] == 0
    assert total["pad_margin"] == total["reference_pad_margin"]
    assert total["n_tokens"] == 25 + quality.RIGHT_PAD_TOKENS
    assert total["wer"] is None


def test_fewer_bits_cost_more(source: Path, tmp_path: Path, sound: Path) -> None:
    eight = verified(source, tmp_path / "q8", sound, "q8")
    four = verified(source, tmp_path / "q4", sound, "q4")
    assert 0 < eight["total"]["mean_logit_error"] < four["total"]["mean_logit_error"]
    assert 0 < eight["total"]["mean_kl"] < four["total"]["mean_kl"]
    assert eight["bits_per_weight"] > four["bits_per_weight"]
    assert eight["bytes_per_audio_token"] > four["bytes_per_audio_token"]
    card = (tmp_path / "q4" / "README.md").read_text()
    assert f"{four['total']['token_agreement']:.2%}" in card
    assert main(["--check", str(tmp_path / "q4")]) == 0


def test_a_transcript_beside_a_sound_gives_an_error_rate(
    source: Path, tmp_path: Path, sound: Path
) -> None:
    pytest.importorskip("whisper_normalizer", reason="install voxmlx-realtime[convert]")
    copy = tmp_path / "said.wav"
    copy.write_bytes(sound.read_bytes())
    copy.with_suffix(".txt").write_text("what was said")
    content = verified(source, tmp_path / "ours", copy, "bf16")
    assert content["total"]["wer"] == content["total"]["reference_wer"]
    assert "BasicTextNormalizer" in content["normaliser"]


def test_logits_do_not_depend_on_how_a_sound_is_cut(
    source: Path, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load(source, "float32")
    (heard,) = quality.read_sounds([sound])
    samples = np.pad(heard.padded, (0, checkpoint.model.mel.lookahead))
    ids = np.arange(35, dtype=np.int32)
    whole = np.concatenate(list(quality.forced_logits(checkpoint, samples, ids)))
    monkeypatch.setattr(quality, "_POSITIONS", 7)
    parts = np.concatenate(list(quality.forced_logits(checkpoint, samples, ids)))
    np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_ids_a_model_chose_are_those_its_forced_logits_choose(
    source: Path, sound: Path, tmp_path: Path
) -> None:
    (heard,) = quality.read_sounds([sound])
    reading = quality.read(load(source, "float32"), heard, tmp_path)
    logits = np.array(reading.logits)
    logits[:, 2] = -np.inf  # EOS is never chosen
    np.testing.assert_array_equal(logits.argmax(axis=1), reading.ids)


def test_sensitivity_ranks_every_group_and_leaves_the_model_as_it_was(
    source: Path, sound: Path
) -> None:
    checkpoint = load(source, "float32")
    sounds = quality.read_sounds([sound])
    rows = rank(checkpoint, sounds, Precision(4, 64))
    assert {row.group for row in rows} == set(GROUPS)
    costs = [row.error_per_saved_mb for row in rows]
    assert costs == sorted(costs, reverse=True)
    assert min(row.error for row in rows) > 0
    assert rank(checkpoint, sounds, Precision(4, 64)) == rows
