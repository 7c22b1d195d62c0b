"""The certificate says what the bits cost, and nothing when they cost nothing."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from convert import disk, model_reading, quality, sensitivity
from convert.__main__ import main
from convert.sensitivity import GROUPS, SensitivityRow, sensitivities, wanted_bits
from tests.sounds import speech_like
from voxmlx import load
from voxmlx.errors import AudioError


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
    assert " tokens of 1 sound, delay 480 ms" in card
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
    whole = np.concatenate(list(model_reading.forced_logits(checkpoint, samples, ids)))
    monkeypatch.setattr(model_reading, "_POSITIONS", 7)
    parts = np.concatenate(list(model_reading.forced_logits(checkpoint, samples, ids)))
    np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_sounds_read_side_by_side_are_read_as_each_alone(
    source: Path, tmp_path: Path
) -> None:
    checkpoint = load(source, "float32")
    sounds = [
        quality.Sound(str(n), speech_like(n), None) for n in (16_000, 9_000, 31_000)
    ]
    together = list(model_reading.read(checkpoint, sounds, tmp_path))
    for sound, found in zip(sounds, together, strict=True):
        (alone,) = model_reading.read(checkpoint, [sound], tmp_path)
        np.testing.assert_array_equal(found.ids, alone.ids)
        np.testing.assert_allclose(found.logits, alone.logits, atol=1e-4)


def test_ids_a_model_chose_are_those_its_forced_logits_choose(
    source: Path, sound: Path, tmp_path: Path
) -> None:
    (heard,) = quality.read_sounds([sound])
    (found,) = model_reading.read(load(source, "float32"), [heard], tmp_path)
    logits = np.array(found.logits)
    logits[:, 2] = -np.inf  # EOS is never chosen
    np.testing.assert_array_equal(logits.argmax(axis=1), found.ids)


def test_sensitivity_has_every_group_and_leaves_the_model_as_it_was(
    source: Path, sound: Path
) -> None:
    checkpoint = load(source, "float32")
    sounds = quality.read_sounds([sound])
    rows = sensitivities(checkpoint, sounds)
    assert tuple(row.group for row in rows) == GROUPS
    assert min(row.kl for row in rows) > 0
    assert sensitivities(checkpoint, sounds) == rows


def test_four_times_the_kl_per_weight_wants_a_bit_more() -> None:
    rows = [
        SensitivityRow("a", 1000, 1e-4),
        SensitivityRow("b", 1000, 4e-4),
        SensitivityRow("c", 4000, 4e-4),
        SensitivityRow("d", 250, 8e-4),
    ]
    wanted = wanted_bits(rows, 3)
    assert wanted == pytest.approx({"a": 3, "b": 4, "c": 3, "d": 5.5})
    free = [SensitivityRow("free", 9, 0)]
    assert wanted_bits([*rows, *free], 3) == pytest.approx(wanted | {"free": 3})
    assert wanted_bits(free, 3) == {"free": 3}


@pytest.mark.parametrize("bits", [2, 8])
def test_many_bits_cost_little_and_never_less_than_nothing(
    bits: int, source: Path, sound: Path
) -> None:
    checkpoint = load(source, "float32")
    rows = sensitivities(checkpoint, quality.read_sounds([sound]), bits)
    assert min(row.kl for row in rows) >= 0
    assert min(wanted_bits(rows, bits).values()) == bits


def test_sensitivity_of_a_quantized_model_is_one_line(
    source: Path, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(source), str(tmp_path / "q4")]) == 0
    capsys.readouterr()
    assert sensitivity.main([str(tmp_path / "q4"), "--audio", str(sound)]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "is quantized already; give the one in 16 bits" in line


def reading_of(ids: list[int], logits: np.ndarray, text: str) -> quality.ModelReading:
    return quality.ModelReading(
        np.array(ids, np.int32), logits.astype(np.float32), text
    )


def test_the_certificate_is_right_on_numbers_worked_out_by_hand() -> None:
    pad, eos, vocab = 32, 2, 40
    a, b = np.zeros((4, vocab)), np.zeros((4, vocab))
    a[0, pad], b[0, pad] = 8, 7  # both choose PAD; leads of 8 and of 7 - 1
    b[0, 5] = 1
    a[1, 6], b[1, 7] = 3, 3  # they choose 6 and 7
    a[2, eos], b[2, eos] = 9, 0  # never chosen: id 8 is, by both
    a[2, 8] = b[2, 8] = 1
    a[3, pad], b[3, 9] = 4, 2  # PAD against 9; leads of 4 and of -2
    sounds = [quality.Sound("s", np.zeros(1280, np.float32), "one two three")]
    content = quality.certificate(
        sounds,
        [reading_of([pad, 6, 8, pad], a, "One, two three")],
        [reading_of([pad, 6, 8, 9], b, "one two")],
        "float32",
        "bfloat16",
    )
    total = content["total"]
    assert total["n_tokens"] == 4
    assert total["token_agreement"] == 2 / 4
    assert total["free_token_agreement"] == 3 / 4
    assert total["max_logit_error"] == 9
    errors = [1 + 1, 3 + 3, 9, 4 + 2]
    assert total["mean_logit_error"] == pytest.approx(sum(errors) / 4 / vocab)
    p, q = np.exp(a), np.exp(b)
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    divergences = (p * np.log(p / q)).sum(1)
    assert total["mean_kl"] == pytest.approx(divergences.mean())
    assert total["max_kl"] == pytest.approx(divergences.max())
    assert total["reference_pad_margin"] == (8 + 4) / 2
    assert total["pad_margin"] == (6 - 2) / 2
    (row,) = content["sounds"]
    assert {key: row[key] for key in total if "wer" not in key} == {
        key: value for key, value in total.items() if "wer" not in key
    }
    assert (row["reference_text"], row["text"]) == ("One, two three", "one two")


def test_the_error_rate_is_of_normalised_words_over_all_sounds() -> None:
    pytest.importorskip("whisper_normalizer", reason="install voxmlx-realtime[convert]")
    logits = np.zeros((1, 40))
    said = ["One, two. Three!", "four", None]
    heard = [("one two three", "one to three"), ("Four", "four five"), ("x", "y")]
    sounds = [quality.Sound("s", np.zeros(1280, np.float32), text) for text in said]
    content = quality.certificate(
        sounds,
        [reading_of([0], logits, text) for text, _ in heard],
        [reading_of([0], logits, text) for _, text in heard],
        "float32",
        "float32",
    )
    assert content["total"]["reference_wer"] == 0
    assert content["total"]["wer"] == 2 / 4
    assert "BasicTextNormalizer" in content["normaliser"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "the following arguments are required"),
        (["demo", "--audio"], "expected at least one argument"),
        (["demo", "--audio", "a.wav", "--bits", "7"], "invalid choice: 7"),
    ],
)
def test_wrong_arguments_of_the_sensitivity_are_one_line_and_status_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        sensitivity.main(arguments)
    assert raised.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert expected in line


def test_a_model_that_no_bits_fit_has_no_sensitivity(
    source: Path,
    sound: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sensitivity, "_GROUP_SIZE", 1000)
    assert sensitivity.main([str(source), "--audio", str(sound)]) == 1
    seen = capsys.readouterr()
    assert not seen.out
    assert "no matrix has rows of whole groups of 1000" in seen.err


def test_a_silent_sound_or_an_unreadable_transcript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "said.wav"
    soundfile.write(path, np.zeros(16_000), 16_000)
    with pytest.raises(AudioError, match="is silent"):
        quality.read_sounds([path])
    soundfile.write(path, speech_like(16_000), 16_000)
    path.with_suffix(".txt").write_bytes(b"caf\xe9")
    with pytest.raises(AudioError, match=r"said\.txt is not readable"):
        quality.read_sounds([path])


def test_a_transcript_that_nothing_can_compare_with_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    tmp_path: Path,
    sound: Path,
) -> None:
    copy = tmp_path / "said.wav"
    copy.write_bytes(sound.read_bytes())
    copy.with_suffix(".txt").write_text("what was said")
    monkeypatch.setitem(sys.modules, "jiwer", None)
    arguments = [str(source), str(tmp_path / "ours"), "--verify", str(copy)]
    assert main(arguments) == 1
    assert "jiwer is not installed" in capsys.readouterr().err
    assert not list(tmp_path.glob("ours*"))


def test_too_little_room_for_logits_is_one_line_and_the_weights_are_kept(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    tmp_path: Path,
    sound: Path,
) -> None:
    real = disk.check_room

    def no_room(place: Path, n_bytes: int, purpose: str = "") -> None:
        real(place, n_bytes if not purpose else 10**18, purpose)

    arguments = [str(source), str(tmp_path / "ours"), "--verify", str(sound)]
    with monkeypatch.context() as patch:
        patch.setattr("convert.verify.check_room", no_room)
        assert main(arguments) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "to verify with" in line
    assert main(arguments) == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"{}", b'{"sounds": [1]}', b'{"sounds": ' + b"[" * 100_000],
)
def test_a_certificate_that_cannot_be_read_is_of_no_sounds(
    tmp_path: Path, sound: Path, content: bytes
) -> None:
    (tmp_path / "quality.json").write_bytes(content)
    assert not quality.is_certified(tmp_path, quality.read_sounds([sound]))
