"""The benchmark of hot words lists what it says it lists, and counts as it should."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.hotwords import cases, in_noise, main, measure
from voxmlx import demo, load

SOUND = np.zeros(1, np.float32)
SAMPLE, _ = soundfile.read(demo.SAMPLE, dtype="float32")
TEXT = " ".join((demo.DIRECTORY / "sample.txt").read_text("utf-8").split())


def test_a_missed_word_is_listed_with_others_and_never_where_none_is() -> None:
    said = ["the north door", "seven doors are here", "my left hand", "Quiet, north!"]
    heard = ["the north four", "seven door so ear", "my left hand", "quiet north"]
    plain = [tuple(text.split()) for text in heard]
    found = cases([(SOUND, text) for text in said], plain, 2)
    assert [case.missed for case in found[:1]] == ["door"]
    assert found[1].missed in ("doors", "here")
    for case in found[:2]:
        assert case.missed in case.hotwords
        assert case.is_listed
        assert set(case.hotwords) <= {"door", "doors", "here"}
    for case in found[2:]:
        assert case.missed is None
        assert not case.is_listed
        assert case.hotwords
    # Short words are none that anybody would list.
    (short,) = cases([(SOUND, "it is seven")], [("seven",)], 2, min_letters=2)
    assert short.missed in ("it", "is")


def test_what_a_list_changes_is_counted() -> None:
    checkpoint = load(demo.NAME, "float32")
    words = TEXT.split()
    # As if the first word had been missed, and the others been heard as they are.
    said = [(SAMPLE, TEXT)]
    (case,) = cases(said, [("nothing", *words[1:])], 1)
    assert (case.missed, case.hotwords) == (words[0], (words[0],))
    row = measure(checkpoint, [case], 480, 1.0)
    assert (row.n_missed, row.n_found) == (1, 1)
    assert (row.n_right, row.n_lost) == (len(words) - 1, 0)
    assert (row.n_unlisted, row.n_disturbed) == (0, 0)


def test_noise_is_the_same_for_the_same_seed() -> None:
    a, b = (in_noise(SAMPLE[:16_000], 0.1, seed=3) for _ in range(2))
    assert (a == b).all()
    assert len(a) == 16_000 + 2 * 4800
    assert abs(float(np.std(a[:4800])) - 0.1) < 0.01


def test_the_command_prints_a_row_for_each_boost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "talk.wav", SAMPLE[:48_000], 16_000)
    (tmp_path / "talk.txt").write_text("seven oh seven wonderful")
    assert main([str(tmp_path), "--listed", "1", "--boosts", "1", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = json.loads(lines[-1])["rows"]
    assert [row["boost"] for row in rows] == [1.0, 2.0]
    assert {(row["n_missed"], row["n_found"]) for row in rows} == {(1, 0)}
    (tmp_path / "talk.txt").write_text("oh")
    assert main([str(tmp_path)]) == 1
    assert "add --noise" in capsys.readouterr().err
