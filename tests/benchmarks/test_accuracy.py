"""The accuracy benchmark reads what it says it reads, and counts as it should."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.accuracy import error_rate, main, measure
from benchmarks.speech_sets import Utterance, utterances
from benchmarks.word_times import Marked, TimeErrors, in_one_stream
from training.dataset import Utterance as Spoken
from training.dataset import write_dataset
from voxmlx import Word, demo, load

SAMPLE, _ = soundfile.read(demo.SAMPLE, dtype="float32")
TEXT = " ".join((demo.DIRECTORY / "sample.txt").read_text("utf-8").split())


def wav(samples: np.ndarray, rate: int = 16_000) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format="WAV")
    return content.getvalue()


def fleurs(folder: Path, *, is_packed: bool) -> Path:
    """A language as it is published: two sounds told of, one not."""
    sounds = {"1.wav": wav(SAMPLE[:8000]), "2.wav": wav(SAMPLE[:4000], 8_000)}
    (folder / "audio" / "test").mkdir(parents=True)
    (folder / "test.tsv").write_text(
        "7\t2.wav\tTwo, “as read”.\ttwo as read\tt w o |\t4000\tMALE\n"
        "7\t1.wav\tOne.\tone\to n e |\t8000\tFEMALE\n",
        encoding="utf-8",
    )
    if is_packed:
        with tarfile.open(folder / "audio" / "test.tar.gz", "w:gz") as archive:
            for name, content in {**sounds, "3.wav": b""}.items():
                member = tarfile.TarInfo(f"test/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        for name, content in sounds.items():
            (folder / "audio" / "test" / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("is_packed", [True, False])
def test_fleurs_is_read_as_it_is_published(tmp_path: Path, is_packed: bool) -> None:
    found = {u.text: u for u in utterances(fleurs(tmp_path, is_packed=is_packed))}
    assert sorted(found) == ["One.", "Two, “as read”."]
    assert {len(u.samples) for u in found.values()} == {8000}
    np.testing.assert_allclose(found["One."].samples, SAMPLE[:8000], atol=1e-4)


def test_a_folder_without_texts_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talk.wav").write_bytes(wav(SAMPLE[:8000]))
    assert main([str(tmp_path)]) == 1
    assert "holds no speech to compare with" in capsys.readouterr().err


def test_sounds_beside_their_texts_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talk.wav").write_bytes(wav(SAMPLE))
    (tmp_path / "talk.txt").write_text(TEXT.capitalize() + "!")
    assert main([str(tmp_path), "--delays", "480", "--dtype", "float32"]) == 0
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert row["error_rate"] == 0
    assert (row["n_utterances"], row["unit"], row["times"]) == (1, "words", None)


def test_words_of_marked_speech_are_compared_in_time(tmp_path: Path) -> None:
    words = tuple(TEXT.split())
    ends = tuple(len(SAMPLE) * (i + 1) // len(words) for i in range(len(words)))
    write_dataset(tmp_path, [Spoken(SAMPLE, words, ends, "somebody")])
    said = list(utterances(tmp_path))
    row = measure(load(demo.NAME, "float32"), "folder", said, 480)
    assert row.times is not None
    assert row.times.n_words > 0.9 * len(words)
    assert row.error_rate < 0.1


def test_errors_of_time_are_those_of_recognized_words() -> None:
    marks = [
        Marked("one", None, 500),
        Marked("two", 500, 900),
        Marked("six", None, 2000),
    ]
    words = [Word("One", 100, 580), Word("two,", 400, 870), Word("sick", 1500, 2000)]
    errors = TimeErrors.of(marks, words)
    assert (errors.n_words, errors.end_mean, errors.end_within) == (2, 25, 1)
    assert (errors.start_mean, errors.start_within) == (-100, 1)


def test_marks_move_with_their_utterance() -> None:
    said = Utterance(np.ones(16_000, np.float32), "one two", (400.0, 900.0))
    sound, marks = in_one_stream([said, said], pause_s=0.5)
    assert len(sound) == 3.5 * 16_000
    assert marks == [
        Marked("one", None, 900),
        Marked("two", 900, 1400),
        Marked("one", None, 2400),
        Marked("two", 2400, 2900),
    ]


def test_case_and_punctuation_are_no_errors_and_characters_can_be_counted() -> None:
    assert error_rate(["It is seven."], ["it is SEVEN"]) == 0
    assert error_rate(["a b c d"], ["a b x"]) == 0.5
    assert error_rate(["今天天氣很好"], ["今天天气很好。"], by_character=True) == 1 / 6
