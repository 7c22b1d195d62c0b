"""The command: with a model that only counts, and end to end with a tiny one."""

import argparse
import json
import os
import pty
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pysrt
import pytest
import soundfile
import webvtt

import voxmlx
from tests.audio.bad_files import BAD_FILES
from tests.audio.wav_bytes import encode, wav_bytes
from tests.sounds import speech_like
from voxmlx.checkpoint import Checkpoint
from voxmlx.errors import CheckpointError, SessionError
from voxmlx.events import Event, Finished, TextDelta, TokenDecoded, Word, WordFinal
from voxmlx.session import Session
from voxmlx.transcribe import Recognizer, main

ROOT = Path(__file__).parent.parent


class Counting:
    """A stream that says one word, and one token, for every second it has heard."""

    def __init__(self) -> None:
        self.n_samples = 0
        self.n_words = 0

    def push(self, samples: np.ndarray, /) -> list[Event]:
        assert samples.ndim == 1
        assert samples.dtype == np.float32
        self.n_samples += len(samples)
        events: list[Event] = []
        while self.n_words < self.n_samples // 16_000:
            events += self._say(f" w{self.n_words}\u00e9")
        return events

    def finish(self) -> list[Event]:
        duration_ms = self.n_samples // 16
        return [*self._say(" end "), Finished(duration_ms, self.n_words)]

    def _say(self, text: str) -> list[Event]:
        index, self.n_words = self.n_words, self.n_words + 1
        time_ms = 1000 * (index + 1)
        word = Word(text.strip(), time_ms - 500, time_ms)
        return [
            TokenDecoded(1000 + index, index, time_ms),
            TextDelta(text, time_ms),
            WordFinal(word, time_ms),
        ]


class Shop:
    """Where `main` gets its model from; notes what it was asked for."""

    def __init__(self, start: Callable[[], Any] = Counting) -> None:
        self.asked: list[argparse.Namespace] = []
        self._start = start

    def __call__(self, arguments: argparse.Namespace) -> Recognizer:
        self.asked.append(arguments)
        return Recognizer("counting", self._start, dtype="float32")


def no_model(arguments: argparse.Namespace) -> Recognizer:
    raise AssertionError("the model was loaded before the cheap checks were done")


def write_sound(path: Path, duration_s: float = 3.0) -> str:
    soundfile.write(path, speech_like(round(16_000 * duration_s)), 16_000)
    return str(path)


@pytest.fixture
def talk(tmp_path: Path) -> str:
    """Three seconds of sound, which count as "w0 w1 w2 end"."""
    return write_sound(tmp_path / "talk.wav")


TALK_TEXT = "w0\u00e9 w1\u00e9 w2\u00e9 end"


def error_lines(text: str) -> list[str]:
    lines = text.splitlines()
    assert all(line.startswith("voxmlx: error: ") for line in lines)
    return lines


def test_text_goes_to_standard_output(
    talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([talk], recognizer=Shop()) == 0
    assert capsys.readouterr() == (TALK_TEXT + "\n", "")


def test_json_has_the_text_the_ids_and_where_they_are_from(
    talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([talk, "--format", "json", "--delay", "960"], recognizer=Shop()) == 0
    out, _ = capsys.readouterr()
    assert json.loads(out) == {
        "file": talk,
        "model": "counting",
        "delay_ms": 960,
        "dtype": "float32",
        "package_version": voxmlx.__version__,
        "duration_ms": 3000,
        "text": TALK_TEXT,
        "segments": [
            {
                "start_ms": 500,
                "end_ms": 4000,
                "text": TALK_TEXT,
                "words": [
                    {
                        "text": text,
                        "start_ms": 1000 * i + 500,
                        "end_ms": 1000 * i + 1000,
                    }
                    for i, text in enumerate(TALK_TEXT.split())
                ],
            }
        ],
        "tokens": [1000, 1001, 1002, 1003],
    }
    assert "\u00e9" in out


def test_several_files_are_told_apart(
    tmp_path: Path, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_sound(tmp_path / "other.flac", 1.0)
    shop = Shop()
    assert main([talk, other], recognizer=shop) == 0
    assert capsys.readouterr().out == (
        f"==> {talk} <==\n{TALK_TEXT}\n==> {other} <==\nw0\u00e9 end\n"
    )
    assert len(shop.asked) == 1, "the model was loaded more than once"


def test_json_of_several_files_is_one_object_per_line(
    tmp_path: Path, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_sound(tmp_path / "other.flac", 1.0)
    assert main([talk, other, "--format", "json"], recognizer=Shop()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["file"] for line in lines] == [talk, other]


@pytest.mark.parametrize(
    ("option", "content", "named"),
    [
        ("--hotwords", None, "words.txt does not exist"),
        ("--hotwords", b"\xff", "words.txt is not UTF-8"),
        ("--hotwords", b"a\n\nb", "words.txt, line 2: a hot word is empty"),
        ("--replace", None, "words.txt does not exist"),
        ("--replace", b"a = b\nc", "words.txt, line 2 is 'c', expected: heard"),
    ],
)
def test_a_bad_file_of_words_is_one_line_before_the_model_is_loaded(
    option: str,
    content: bytes | None,
    named: str,
    talk: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    assert main([talk, option, str(path)], recognizer=no_model) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert named in line


def test_subtitles_keep_to_the_limits_asked_for(
    talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--format", "srt", "--line-chars", "7", "--lines", "1"]
    assert main([talk, *arguments], recognizer=Shop()) == 0
    cues = capsys.readouterr().out.split("\n\n")
    assert cues[0] == "1\n00:00:00,500 --> 00:00:02,000\nw0\u00e9 w1\u00e9"
    arguments = ["--format", "vtt", "--word-times"]
    assert main([talk, *arguments], recognizer=Shop()) == 0
    assert "w0\u00e9 <00:00:01.500>w1\u00e9" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["txt", "json", "srt", "vtt", "jsonl"])
def test_an_output_directory_gets_a_file_per_input(
    tmp_path: Path, talk: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_sound(tmp_path / "other.flac", 1.0)
    results = tmp_path / "made" / "results"
    arguments = [talk, other, "--output-dir", str(results), "--format", suffix]
    assert main(arguments, recognizer=Shop()) == 0
    assert capsys.readouterr() == ("", "")
    texts = {path.name: path.read_text(encoding="utf-8") for path in results.iterdir()}
    assert texts.keys() == {f"talk.{suffix}", f"other.{suffix}"}
    if suffix == "json":
        texts = {name: json.loads(text)["text"] for name, text in texts.items()}
    if suffix != "jsonl":
        assert sum(TALK_TEXT in text for text in texts.values()) == 1


def test_one_bad_file_does_not_stop_the_others(
    tmp_path: Path, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_sound(tmp_path / "other.flac", 1.0)
    missing = str(tmp_path / "missing.wav")
    results = tmp_path / "results"
    arguments = [talk, missing, other, "--output-dir", str(results)]
    assert main(arguments, recognizer=Shop()) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert error_lines(err) == [
        f"voxmlx: error: {missing} does not exist; check its path"
    ]
    assert {path.name for path in results.iterdir()} == {"talk.txt", "other.txt"}


def test_a_file_that_proves_bad_half_way_does_not_stop_the_others(
    tmp_path: Path, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.wav"
    sound = speech_like(48_000)
    sound[40_000] = np.nan
    bad.write_bytes(wav_bytes(encode(sound, "f32"), encoding="f32"))
    results = tmp_path / "results"
    results.mkdir()
    (results / "bad.txt").write_text("of an earlier run")
    arguments = [str(bad), talk, "--output-dir", str(results)]
    assert main(arguments, recognizer=Shop()) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert "NaN or infinite sample at 2.500 s" in line
    assert {path.name for path in results.iterdir()} == {"bad.txt", "talk.txt"}
    assert (results / "bad.txt").read_text() == "of an earlier run"


def test_text_printed_before_a_fault_ends_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.wav"
    sound = speech_like(16_000 * 12)
    sound[-1] = np.nan
    path.write_bytes(wav_bytes(encode(sound, "f32"), encoding="f32"))
    assert main([str(path)], recognizer=Shop()) == 1
    out, err = capsys.readouterr()
    assert out.startswith("w0\u00e9 w1\u00e9")
    assert out.endswith("\u00e9\n")
    assert len(error_lines(err)) == 1


def test_a_cut_file_gives_its_text_and_one_line_of_warning(
    tmp_path: Path, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.wav"
    cut.write_bytes(Path(talk).read_bytes()[:-16_000])
    assert main([str(cut)], recognizer=Shop()) == 0
    out, err = capsys.readouterr()
    assert out == "w0\u00e9 w1\u00e9 end\n"
    assert err.startswith(f"voxmlx: warning: {cut} is cut short: ")
    assert err.endswith("500 ms is missing\n")


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_warning_is_in_the_formats_for_programs(
    tmp_path: Path, talk: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.wav"
    cut.write_bytes(Path(talk).read_bytes()[:-16_000])
    assert main([str(cut), "--format", suffix], recognizer=Shop()) == 0
    out, err = capsys.readouterr()
    if suffix == "json":
        (warning,) = json.loads(out)["warnings"]
    else:
        (line,) = [line for line in out.splitlines() if '"warning"' in line]
        warning = json.loads(line)
        assert warning.pop("type") == "warning"
    assert warning.keys() == {"code", "message", "time_ms"}
    assert (warning["code"], warning["time_ms"]) == ("cut_short", 2500)
    assert err == f"voxmlx: warning: {warning['message']}\n"


def test_silence_is_no_silent_success(
    tmp_path: Path, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Silent(Counting):
        def _say(self, text: str) -> list[Event]:
            self.n_words += 1
            return []

    assert main([talk, "--format", "json"], recognizer=Shop(Silent)) == 0
    out, err = capsys.readouterr()
    assert err.startswith(
        f"voxmlx: warning: no words were heard in the 3.0 s of {talk}"
    )
    assert [w["code"] for w in json.loads(out)["warnings"]] == ["no_words"]


@pytest.mark.parametrize("delay", ["0", "20", "100", "-80", "1280", "2401"])
def test_an_illegal_delay_is_an_error_that_lists_the_legal_ones(
    talk: str, delay: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([talk, "--delay", delay], recognizer=no_model) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert f"delay of {delay} ms" in line
    assert "80, 160, 240" in line
    assert "1200, 2400" in line


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["--delay", "soon"],
        ["--format", "doc"],
        ["--lines", "0"],
        ["--fast"],
        ["-", "-"],
        ["--out", "out.srt"],
        ["--output-d", "out"],
        ["--skip-existing"],
        ["--format", "txt", "--format", "srt"],
        ["-o", "film.doc"],
        ["-o", "film.txt", "--format", "srt"],
        ["-o", "film.txt", "--output-dir", "out"],
        ["other.wav", "-o", "film.txt"],
    ],
)
def test_wrong_arguments_exit_with_2(
    talk: str, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([talk, *wrong] if wrong else [], recognizer=no_model)
    assert "see voxmlx transcribe --help" in capsys.readouterr().err


def test_the_model_is_not_loaded_when_no_file_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    arguments = [str(empty), str(tmp_path / "missing.wav"), str(tmp_path)]
    assert main(arguments, recognizer=no_model) == 1
    assert len(error_lines(capsys.readouterr().err)) == 3


def test_the_model_is_not_loaded_when_outputs_collide(
    tmp_path: Path, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = write_sound(tmp_path / "talk.flac")
    results = tmp_path / "results"
    arguments = [talk, twin, "--output-dir", str(results)]
    assert main(arguments, recognizer=no_model) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert "would both be written to" in line
    assert not results.exists()


def test_the_model_is_not_loaded_when_the_output_directory_is_a_file(
    talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([talk, "--output-dir", talk], recognizer=no_model) == 1
    (line,) = error_lines(capsys.readouterr().err)
    assert "is a file, expected a directory" in line


@pytest.mark.parametrize("error", [CheckpointError, SessionError])
def test_an_error_of_the_model_is_one_line(
    talk: str, error: type[CheckpointError], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: argparse.Namespace) -> Recognizer:
        raise error("the model\nis not well")

    assert main([talk], recognizer=fail) == 1
    assert capsys.readouterr() == ("", "voxmlx: error: the model is not well\n")


@pytest.mark.parametrize("suffix", ["txt", "srt", "vtt", "json", "jsonl"])
def test_ctrl_c_keeps_valid_files_that_say_they_are_partial(
    tmp_path: Path, talk: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Cut(Counting):
        def finish(self) -> list[Event]:
            raise KeyboardInterrupt

    results = tmp_path / "results"
    results.mkdir()
    (results / f"talk.{suffix}").write_text("of an earlier run")
    arguments = [talk, "--output-dir", str(results), "--format", suffix]
    assert main(arguments, recognizer=Shop(Cut)) == 130
    assert capsys.readouterr() == ("", "")
    assert (results / f"talk.{suffix}").read_text() == "of an earlier run"
    text = (results / f"talk.partial.{suffix}").read_text("utf-8")
    match suffix:
        case "txt":
            assert text == "w0\u00e9 w1\u00e9 w2\u00e9\n"
        case "srt":
            assert [cue.text for cue in pysrt.from_string(text)] == [
                text.split("\n")[2]
            ]
            assert "w0\u00e9 w1\u00e9 w2\u00e9" in text
        case "vtt":
            (cue,) = webvtt.from_string(text)
            assert cue.text == "w0\u00e9 w1\u00e9 w2\u00e9"
        case "json":
            result = json.loads(text)
            assert result["is_partial"] is True
            assert result["text"] == "w0\u00e9 w1\u00e9 w2\u00e9"
            assert result["duration_ms"] == 3000
        case _:
            kinds = [json.loads(line)["type"] for line in text.splitlines()]
            assert kinds.count("word") == 3
            assert "finished" not in kinds


def test_a_whole_json_does_not_say_that_it_is_partial(
    talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([talk, "--format", "json"], recognizer=Shop()) == 0
    assert "is_partial" not in json.loads(capsys.readouterr().out)


def test_what_is_printed_until_ctrl_c_is_whole(
    talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Cut(Counting):
        def finish(self) -> list[Event]:
            raise KeyboardInterrupt

    assert main([talk, "--format", "srt"], recognizer=Shop(Cut)) == 130
    assert "w0\u00e9 w1\u00e9 w2\u00e9\n\n" in capsys.readouterr().out


def test_existing_results_are_skipped_and_the_others_made(
    tmp_path: Path, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_sound(tmp_path / "other.flac", 1.0)
    results = tmp_path / "results"
    results.mkdir()
    (results / "talk.txt").write_text("mine")
    (results / "other.partial.txt").write_text("of a run that was killed")
    shop = Shop()
    arguments = [talk, other, "--output-dir", str(results), "--skip-existing"]
    assert main(arguments, recognizer=shop) == 0
    assert "1 of 2 inputs skipped" in capsys.readouterr().err
    texts = {path.name: path.read_text("utf-8") for path in results.iterdir()}
    assert texts == {"talk.txt": "mine", "other.txt": "w0\u00e9 end\n"}
    assert main(arguments, recognizer=no_model) == 0


def test_an_input_is_skipped_only_if_all_its_formats_are_there(
    tmp_path: Path, talk: str
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "talk.txt").write_text("mine")
    arguments = [talk, "--output-dir", str(results), "--skip-existing"]
    arguments += ["--format", "txt", "--format", "srt"]
    assert main(arguments, recognizer=Shop()) == 0
    assert {path.name for path in results.iterdir()} == {"talk.txt", "talk.srt"}
    assert (results / "talk.txt").read_text("utf-8") == TALK_TEXT + "\n"


def test_several_formats_come_from_one_run(tmp_path: Path, talk: str) -> None:
    class Once(Counting):
        n_started = 0

        def __init__(self) -> None:
            super().__init__()
            Once.n_started += 1

    formats = ["txt", "srt", "vtt", "json", "jsonl"]
    one = tmp_path / "one"
    arguments = [talk, "--output-dir", str(one)]
    for name in formats:
        arguments += ["--format", name]
    assert main(arguments, recognizer=Shop(Once)) == 0
    assert Once.n_started == 1
    for name in formats:
        each = tmp_path / f"only-{name}"
        arguments = [talk, "--output-dir", str(each), "--format", name]
        assert main(arguments, recognizer=Shop()) == 0
        assert (each / f"talk.{name}").read_bytes() == (
            one / f"talk.{name}"
        ).read_bytes()


@pytest.mark.parametrize("option", ["-o", "--output"])
def test_a_named_output_has_the_format_of_its_suffix(
    tmp_path: Path, talk: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    srt, txt = tmp_path / "made" / "film.srt", tmp_path / "film.txt"
    arguments = [talk, option, str(srt), option, str(txt)]
    assert main(arguments, recognizer=Shop()) == 0
    assert capsys.readouterr() == ("", "")
    assert txt.read_text("utf-8") == TALK_TEXT + "\n"
    assert srt.read_text("utf-8").startswith("1\n00:00:00,500 --> ")
    assert list((tmp_path / "made").iterdir()) == [srt]


def test_a_named_output_that_is_the_input_is_refused(
    tmp_path: Path, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "sound.txt"
    Path(talk).rename(odd)
    before = odd.read_bytes()
    assert main([str(odd), "-o", str(odd)], recognizer=no_model) == 1
    assert "one of the inputs" in capsys.readouterr().err
    assert odd.read_bytes() == before


def test_each_file_has_a_stream_of_its_own(
    tmp_path: Path, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([talk, talk], recognizer=Shop()) == 0
    assert capsys.readouterr().out.count(TALK_TEXT) == 2


def test_half_an_hour_of_text_needs_little_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "long.wav"
    with open(path, "wb") as file:
        file.write(wav_bytes(b"", data_size=16_000 * 2 * 1800))
        file.truncate(file.tell() + 16_000 * 2 * 1800)
    results = tmp_path / "results"
    tracemalloc.start()
    try:
        status = main([str(path), "--output-dir", str(results)], recognizer=Shop())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert status == 0
    assert (results / "long.txt").read_text(encoding="utf-8").count("w") == 1800
    assert peak_bytes < 4 * 2**20


# ---- End to end, in a process of its own.

# Python code that runs the command with the counting model, for what needs a
# process but no network.
WITH_COUNTING = (
    "import sys; from tests.test_transcribe import *; "
    "sys.exit(main(sys.argv[1:], recognizer=Shop()))"
)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def run(
    arguments: Sequence[str | Path], stdin: bytes = b"", **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command, as a user would."""
    done = subprocess.run(
        [sys.executable, "-m", "voxmlx.transcribe", *map(str, arguments)],
        input=stdin,
        env=environment(),
        capture_output=True,
        check=False,
        **options,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


# The same, telling of each word once it is written.
WITH_WORDS_TOLD = """
from tests.test_transcribe import *
from voxmlx.cli.results import Results
feed = Results.feed
def told(results, event):
    feed(results, event)
    if isinstance(event, WordFinal):
        print(event.word.end_ms, flush=True)
Results.feed = told
sys.exit(main(sys.argv[1:], recognizer=Shop()))
"""


def start_counting(
    *arguments: str, code: str = WITH_COUNTING, **streams: Any
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen[bytes](command, env=environment(), **streams)


def assert_one_error_line(stderr: str) -> None:
    assert "Traceback" not in stderr
    assert len(error_lines(stderr)) == 1


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_ends_the_command_with_one_line_and_no_output(
    tmp_path: Path, tiny_checkpoint_dir: Path, name: str
) -> None:
    write, _ = BAD_FILES[name]
    path = tmp_path / name
    write(path)
    results = tmp_path / "results"
    results.mkdir()
    done = run([path, "--model", tiny_checkpoint_dir, "--output-dir", results])
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_error_line(done.stderr)
    assert str(path) in done.stderr
    assert list(results.iterdir()) == []


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        pytest.param(b"", r"standard input is empty", id="nothing"),
        pytest.param(bytes(3201), "is not a sound file", id="bare samples"),
        pytest.param(b"<html>no</html>" * 99, "is a web page (HTML)", id="a web page"),
        pytest.param(bytes(range(256)) * 99, "is not a sound file", id="other bytes"),
        pytest.param(wav_bytes(b""), "holds no sound", id="no samples"),
        pytest.param(b"fLaC" + bytes(100), "is damaged", id="flac"),
    ],
)
def test_bad_standard_input_ends_the_command_with_one_line(
    tmp_path: Path, tiny_checkpoint_dir: Path, sound: bytes, message: str
) -> None:
    results = tmp_path / "results"
    done = run(
        ["-", "--model", tiny_checkpoint_dir, "--output-dir", results], stdin=sound
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_error_line(done.stderr)
    assert message in done.stderr
    assert not results.exists() or list(results.iterdir()) == []


@pytest.mark.parametrize("options", [[], ["--no-speculation"]])
def test_a_file_of_a_tiny_model_gives_the_ids_of_a_session(
    tmp_path: Path,
    tiny_checkpoint_dir: Path,
    tiny_checkpoint: Checkpoint,
    options: list[str],
) -> None:
    sound = speech_like(16_000 * 3 + 123)
    path = tmp_path / "talk.flac"
    soundfile.write(path, sound, 16_000)
    session = Session(tiny_checkpoint, delay_ms=240)
    events = [*session.push(sound), *session.finish()]
    arguments = ["--format", "json", "--delay", "240", "--dtype", "float32"]
    arguments += ["--no-guards", *options]
    done = run([path, "--model", tiny_checkpoint_dir, *arguments])
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["duration_ms"] == 3007
    assert result["tokens"] == [
        e.token_id for e in events if isinstance(e, TokenDecoded)
    ]
    text = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert result["text"] == text.strip()
    words = [word for segment in result["segments"] for word in segment["words"]]
    assert [(w["text"], w["start_ms"], w["end_ms"]) for w in words] == [
        (e.word.text, e.word.start_ms, e.word.end_ms)
        for e in events
        if isinstance(e, WordFinal)
    ]
    assert all(0 < word["confidence"] <= 1 for word in words)


def test_a_file_a_piped_wav_and_a_headerless_pipe_give_the_same(
    tmp_path: Path, tiny_checkpoint_dir: Path
) -> None:
    pcm = encode(speech_like(20_000), "s16")
    (tmp_path / "talk.wav").write_bytes(wav_bytes(pcm))
    piped = wav_bytes(pcm, riff_size=0xFFFF_FFFF, data_size=0xFFFF_FFFF)
    options = ["--model", tiny_checkpoint_dir, "--format", "json"]
    results = [
        run([tmp_path / "talk.wav", *options]),
        run(["-", *options], stdin=piped),
        run(["-", "--raw", *options], stdin=pcm),
    ]
    assert [done.returncode for done in results] == [0, 0, 0]
    assert len({tuple(json.loads(done.stdout)["tokens"]) for done in results}) == 1


def test_a_headerless_pipe_has_the_rate_that_is_stated(
    tmp_path: Path, tiny_checkpoint_dir: Path
) -> None:
    pcm = encode(speech_like(10_000), "s16")
    (tmp_path / "talk.wav").write_bytes(wav_bytes(pcm, rate=8_000))
    options = ["--model", tiny_checkpoint_dir, "--format", "json"]
    stated = run(["-", "--rate", "8000", *options], stdin=pcm)
    of_wav = run([tmp_path / "talk.wav", *options])
    assert stated.returncode == of_wav.returncode == 0
    assert json.loads(stated.stdout)["tokens"] == json.loads(of_wav.stdout)["tokens"]
    impossible = run(["-", "--rate", "0", *options], stdin=pcm)
    assert impossible.returncode == 1
    assert_one_error_line(impossible.stderr)


def test_a_model_that_is_no_model_is_one_line(tmp_path: Path, talk: str) -> None:
    done = run([talk, "--model", tmp_path])
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_error_line(done.stderr)


def test_a_standard_input_that_is_a_terminal_or_closed_is_refused() -> None:
    controller, terminal = pty.openpty()
    closed = ["sh", "-c", 'exec "$@" <&-', "sh"]
    command = [sys.executable, "-m", "voxmlx.transcribe", "-"]
    try:
        for prefix, word in (([], "terminal"), (closed, "closed")):
            done = subprocess.run(
                [*prefix, *command],
                stdin=terminal,
                env=environment(),
                capture_output=True,
                check=False,
                text=True,
            )
            assert done.returncode == 1
            assert_one_error_line(done.stderr)
            assert f"standard input is {'a ' * (word == 'terminal')}{word}" in (
                done.stderr
            )
    finally:
        os.close(controller)
        os.close(terminal)


def test_text_is_printed_while_the_sound_is_still_coming() -> None:
    with start_counting(
        "-", "--raw", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(bytes(32_000))
        process.stdin.flush()
        assert process.stdout.read(4) == "w0\u00e9".encode()
        process.stdin.close()
        assert process.stdout.read() == b" end\n"
    assert process.returncode == 0


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    with start_counting(
        *("-", "--raw"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(bytes(32_000))
        process.stdin.flush()
        process.stdout.read(1)
        process.stdout.close()
        process.stdin.write(bytes(32_000))
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_line(talk: str) -> None:
    with (
        open("/dev/full", "wb") as full,
        start_counting(talk, stdout=full, stderr=subprocess.PIPE) as process,
    ):
        assert process.stderr is not None
        stderr = process.stderr.read().decode()
    assert process.returncode == 1
    assert_one_error_line(stderr)
    assert "standard output cannot be written" in stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_keeps_what_was_written(
    number: int, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    with start_counting(
        *(
            "-",
            "--raw",
            "--output-dir",
            str(results),
            "--format",
            "txt",
            "--format",
            "srt",
        ),
        code=WITH_WORDS_TOLD,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(bytes(64_000))
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == [b"1000\n", b"2000\n"]
        assert len(list(results.iterdir())) == 2
        process.send_signal(number)
        assert process.stderr.read() == b""
    assert process.returncode == 128 + number
    texts = {path.name: path.read_text("utf-8") for path in results.iterdir()}
    assert texts.keys() == {"stdin.partial.txt", "stdin.partial.srt"}
    assert texts["stdin.partial.txt"] == "w0\u00e9 w1\u00e9\n"
    assert "w0\u00e9 w1\u00e9" in texts["stdin.partial.srt"]


def test_nohup_keeps_a_closed_terminal_from_ending_the_command(tmp_path: Path) -> None:
    with start_counting(
        *("-", "--raw", "--output-dir", str(tmp_path)),
        stdin=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(32_000))
        process.stdin.flush()
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        process.stdin.close()
    assert process.returncode == 0
    assert (tmp_path / "stdin.txt").read_text("utf-8") == "w0\u00e9 end\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_does_not_hinder_what_does_not_need_it(
    tmp_path: Path, tiny_checkpoint_dir: Path, talk: str, closed: str
) -> None:
    command = [sys.executable, "-m", "voxmlx.transcribe", talk]
    command += ["--model", str(tiny_checkpoint_dir), "--format", "json"]
    result = tmp_path / "talk.json"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command, "-o", str(result)],
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert json.loads(result.read_text("utf-8"))["duration_ms"] == 3000
    if closed == ">&-":
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
            env=environment(),
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.returncode == 1
        assert_one_error_line(done.stderr)
        assert "standard output is closed" in done.stderr


def test_names_that_are_not_utf_8_are_printed_with_escapes(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    path = folder + b"/talk\xff.wav"
    try:
        with open(path, "wb") as file:
            file.write(wav_bytes(bytes(32_000)))
    except OSError:
        pytest.skip("this file system knows only UTF-8 names")
    done = subprocess.run(
        [sys.executable, "-c", WITH_COUNTING, path, "--format", "json"],
        env=environment() | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        capture_output=True,
        check=True,
    )
    result = json.loads(done.stdout.decode("utf-8"))
    assert os.fsencode(result["file"]) == path
    assert result["text"] == "w0\u00e9 end"


def test_help_and_version_need_no_file() -> None:
    assert "examples:" in run(["--help"]).stdout
    assert run(["--version"]).stdout.startswith("voxmlx ")


# The peak of this process alone: getrusage counts what was there before exec as well.
_WITH_PEAK = """
import sys
from pathlib import Path
from voxmlx.transcribe import main
status = main(sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
sys.exit(status)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="no /proc to read a peak from")
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, tiny_checkpoint_dir: Path
) -> None:
    minute = speech_like(16_000 * 60)
    peaks_mb: list[float] = []
    for n_minutes in (3, 30):
        path = tmp_path / f"{n_minutes}.flac"
        soundfile.write(path, np.tile(minute, n_minutes), 16_000)
        command = [sys.executable, "-c", _WITH_PEAK, path]
        command += ["--model", tiny_checkpoint_dir, "--dtype", "float32"]
        command += ["--output-dir", tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks_mb.append(int(done.stdout) / 1000)
    assert peaks_mb[1] < peaks_mb[0] + 4, peaks_mb
