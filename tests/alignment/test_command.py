"""`voxmlx align` writes subtitles of a text that is given, or one clear line."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.audio.made_files import make_tracks
from tests.held_out import held_out
from voxmlx.align import main

SENTENCE = held_out("flite")[0]
DEMO = ["--demo", "--dtype", "float32"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "talk.wav"
    silence = np.zeros(8000, np.float32)
    samples = np.concatenate([silence, SENTENCE.samples, silence])
    soundfile.write(path, samples, 16_000)
    return path


def text_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "talk.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_subtitles_hold_the_text_and_stderr_what_does_not_match(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = SENTENCE.text.split()
    text = text_file(tmp_path, "\n".join([words[0], "Weather", *words[2:]]))
    assert main([str(sound), str(text), *DEMO]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("1\n00:00:0")
    assert " ".join([words[0], *words[2:]]) in " ".join(out.split("\n"))
    assert "1 word of the text not found in the sound: Weather (" in err
    assert f"1 word heard that the text does not have: {words[1]} (" in err


def test_the_track_that_is_asked_for_is_aligned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks = {"deu": np.zeros(20_000, np.float32), "eng": SENTENCE.samples}
    film = make_tracks(tmp_path / "film.mp4", tracks, "mp4")
    text = text_file(tmp_path, SENTENCE.text)
    assert main([str(film), str(text), "--track", "2", *DEMO]) == 0
    assert "not found" not in capsys.readouterr().err
    assert main([str(film), str(text), "--track", "1", *DEMO]) == 1
    assert "no word of" in capsys.readouterr().err
    assert main([str(film), str(text), "--track", "3", *DEMO]) == 1
    assert "no track 3" in capsys.readouterr().err


def test_json_says_of_every_word_how_it_matched(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = text_file(tmp_path, f"{SENTENCE.text} weather")
    output = tmp_path / "talk.json"
    assert main([str(sound), str(text), "-o", str(output), *DEMO]) == 0
    content = json.loads(output.read_text("utf-8"))
    words = content["words"]
    assert [w["text"] for w in words] == [*SENTENCE.text.split(), "weather"]
    assert [w["status"] for w in words] == ["aligned"] * (len(words) - 1) + ["missing"]
    assert [w["index"] for w in words] == [*range(len(words))]
    assert words[-1]["confidence"] is None
    assert content["duration_ms"] == pytest.approx(
        1000 + len(SENTENCE.samples) / 16, abs=1
    )
    assert (content["model"], content["delay_ms"]) == ("demo", 480)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "the text is empty"),
        (b"caf\xe9", "is no UTF-8 text (byte 3)"),
    ],
)
def test_a_text_that_cannot_be_used_is_one_line(
    sound: Path,
    tmp_path: Path,
    content: bytes | None,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = tmp_path / "talk.txt"
    if content is not None:
        text.write_bytes(content)
    output = tmp_path / "talk.srt"
    assert main([str(sound), str(text), "-o", str(output), *DEMO]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_a_suffix_that_is_no_format_is_refused(
    sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main([str(sound), "talk.txt", "-o", "talk.doc"])
    assert exit.value.code == 2
    assert "ends in none of .srt, .vtt and .json" in capsys.readouterr().err


def test_the_text_is_never_overwritten(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = text_file(tmp_path, "turn on")
    arguments = [str(sound), str(text), "-o", str(text), "--format", "srt", *DEMO]
    assert main(arguments) == 1
    assert "is one of the inputs" in capsys.readouterr().err
