"""`python -m voxmlx.live` as a person runs it, with the demo model."""

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pysrt
import pytest
import soundfile
import webvtt

from tests.live.fake_portaudio import FakePortAudio
from tests.live.pulse import pulse_server
from voxmlx import demo
from voxmlx.live.__main__ import main

ROOT = Path(__file__).parents[2]
SAMPLE_TEXT = " ".join((demo.DIRECTORY / "sample.txt").read_text("utf-8").split())

# Interpreter start and stalls of a busy machine; nothing here takes so long.
PATIENCE_S = 180


def run(module: str, *arguments: str | Path, **options: Any) -> str:
    """What the command prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--demo", *map(str, arguments)],
        check=True,
        stdout=subprocess.PIPE,
        timeout=PATIENCE_S,
        cwd=ROOT,
        **options,
    )
    return done.stdout.decode()


@contextmanager
def live(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "voxmlx.live", "--demo", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=ROOT,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_sound(
    path: Path,
    seconds: float,
    process: subprocess.Popen[bytes],
    terminal: int | None = None,
) -> None:
    """Until a recording holds so many seconds; reads what `terminal` shows."""
    end = time.monotonic() + PATIENCE_S
    while not path.exists() or path.stat().st_size < 44 + seconds * 32_000:
        while terminal is not None and select.select([terminal], [], [], 0)[0]:
            os.read(terminal, 4096)
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], number: int) -> tuple[str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    return out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_mid_sentence_loses_nothing_that_was_heard(
    number: int, tmp_path: Path
) -> None:
    recording, talk = tmp_path / "heard.wav", tmp_path / "talk.wav"
    samples, rate = soundfile.read(demo.SAMPLE, dtype="int16")
    # However late the signal is sent, there is more to hear.
    silence = np.zeros(300 * rate, np.int16)
    soundfile.write(talk, np.concatenate([samples, silence]), rate)
    outputs = [tmp_path / f"out.{suffix}" for suffix in ("txt", "srt", "vtt")]
    named = [argument for path in outputs for argument in ("--output", path)]
    with live(
        *("--input", talk, "--realtime", "--record", recording), *named
    ) as process:
        wait_for_sound(recording, 4.5, process)
        printed, err = end(process, number)
        assert process.returncode == 0
    assert "Traceback" not in err
    assert soundfile.info(recording).duration < 300
    # The end of the stream brings out the last words, as the end of a file does.
    assert printed == run("voxmlx.transcribe", recording)
    assert len(printed.split()) >= 6
    txt, srt, vtt = outputs
    assert txt.read_text("utf-8") == printed
    assert words(cue.text for cue in pysrt.open(str(srt))) == printed.split()
    assert words(cue.text for cue in webvtt.read(str(vtt))) == printed.split()


@pytest.mark.parametrize("option", [[], ["--plain"]])
def test_a_closed_terminal_window_loses_nothing_that_was_heard(
    option: list[str], tmp_path: Path
) -> None:
    recording, srt = tmp_path / "heard.wav", tmp_path / "out.srt"
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "voxmlx.live", "--demo", *option]
    command += ["--input", str(demo.SAMPLE), "--realtime", "--record", str(recording)]
    # As a terminal's program: when its window is closed, it gets SIGHUP by the kernel
    # and every write to the terminal fails.
    process = subprocess.Popen(
        [*command, "--output", str(srt)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        cwd=ROOT,
    )
    os.close(terminal)
    with process:
        try:
            wait_for_sound(recording, 4.5, process, controller)
            os.close(controller)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    heard = run("voxmlx.transcribe", recording).split()
    assert len(heard) >= 6
    assert words(cue.text for cue in pysrt.open(str(srt))) == heard


def test_captions_go_into_files_when_standard_output_is_closed(tmp_path: Path) -> None:
    txt = tmp_path / "out.txt"
    command = [sys.executable, "-m", "voxmlx.live", "--demo"]
    command += ["--input", str(demo.SAMPLE)]
    closed = ["sh", "-c", 'exec "$@" <&- >&-', "sh", *command]
    done = subprocess.run(
        [*closed, "--output", str(txt)], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert txt.read_text("utf-8").split() == SAMPLE_TEXT.split()
    done = subprocess.run(closed, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"standard output is closed" in done.stderr


def words(texts: Iterator[str]) -> list[str]:
    return " ".join(texts).split()


def test_a_second_ctrl_c_stops_at_once_with_valid_files(tmp_path: Path) -> None:
    recording, srt = tmp_path / "heard.wav", tmp_path / "out.srt"
    with live(
        *("--input", demo.SAMPLE, "--realtime"),
        *("--record", recording, "--output", srt),
    ) as process:
        wait_for_sound(recording, 2, process)
        process.send_signal(signal.SIGINT)
        while process.poll() is None:  # to its very end
            process.send_signal(signal.SIGINT)
            time.sleep(0.0005)
        _, err = process.communicate(timeout=PATIENCE_S)
    # Signals that come together may be seen as one, which ends the stream in order.
    assert process.returncode in (0, 130)
    assert b"Traceback" not in err
    assert soundfile.info(recording).duration >= 2
    pysrt.open(str(srt))


def test_a_file_and_standard_input_give_the_text_of_transcribe() -> None:
    expected = run("voxmlx.transcribe")
    assert expected.split() == SAMPLE_TEXT.split()
    assert run("voxmlx.live", "--input", demo.SAMPLE) == expected
    pcm, rate = soundfile.read(demo.SAMPLE, dtype="int16")
    assert rate == 16_000
    piped = run("voxmlx.live", "--input", "-", "--raw", input=pcm.tobytes())
    assert piped == expected


@pytest.fixture
def pulseaudio(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A private server with one null sink; the environment that talks to it."""
    with pulse_server(tmp_path, ["heard"]) as environment:
        yield environment


def spoken_s(path: Path) -> float:
    """Seconds from the first loud sample to the last."""
    samples, rate = soundfile.read(path)
    loud = np.flatnonzero(np.abs(samples) > 1e-3)
    return (loud[-1] - loud[0]) / rate if len(loud) else 0.0


def spoken_words(
    spoken: Path, recording: Path, environment: dict[str, str]
) -> tuple[str, bool]:
    """What the command prints of a sound that is played, and if it heard all of it."""
    with live("--record", recording, environment=environment) as process:
        wait_for_sound(recording, 0.5, process)
        subprocess.run(
            ["paplay", str(spoken)], env=environment, check=True, timeout=PATIENCE_S
        )
        heard_s = soundfile.info(recording).duration
        wait_for_sound(recording, heard_s + 2, process)
        printed, err = end(process, signal.SIGINT)
        assert process.returncode == 0, err
    return printed, abs(spoken_s(recording) - spoken_s(spoken)) < 0.02


def test_speech_through_portaudio_gives_the_text_of_transcribe(
    pulseaudio: dict[str, str], tmp_path: Path
) -> None:
    spoken = tmp_path / "spoken.wav"
    pcm, rate = soundfile.read(demo.SAMPLE, dtype="int16")
    soundfile.write(spoken, pcm, rate)
    # A machine that stands still for a second loses sound between the servers, or a
    # server; what did arrive must be transcribed all the same.
    for recording in (tmp_path / "heard1.wav", tmp_path / "heard2.wav"):
        try:
            printed, is_whole = spoken_words(spoken, recording, pulseaudio)
        except subprocess.CalledProcessError:
            continue  # paplay lost its server
        expected = run("voxmlx.transcribe", recording)
        assert printed == expected
        if is_whole:
            break
    else:
        pytest.skip("PulseAudio lost sound twice: this machine is too busy for it")
    piped = run("voxmlx.live", "--input", "-", input=recording.read_bytes())
    assert piped == expected
    # The same speech: where it begins within an 80 ms audio token is chance.
    assert jiwer.wer(SAMPLE_TEXT, printed) < 0.15


def test_the_demo_without_a_microphone_hears_its_own_sample(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--demo", "--plain"], portaudio=FakePortAudio()) == 0
    captured = capsys.readouterr()
    assert captured.out.split() == SAMPLE_TEXT.split()
    assert "there is no microphone: hearing the demo's sample instead" in captured.err


def test_devices_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-devices"], portaudio=FakePortAudio(Mic=44_100.0)) == 0
    assert capsys.readouterr().out == "1: Mic (44100 Hz, 2 inputs)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "Horn"], "--device Horn is no input device; there are 1: Mic"),
        (["--channel", "3"], "Mic has 2 inputs, --channel 3 is none of them"),
        (["--input", "no.wav"], "no.wav does not exist"),
        (["--delay", "100"], "80, 160, 240"),
        (["--output", "{here}"], "exists and would be overwritten"),
        (["--record", "nowhere/a.wav"], "nowhere/a.wav cannot be written"),
        (["--draft-delay", "480"], "--draft-delay is 480 ms, expected less than"),
        (["--draft-delay", "960", "--delay", "480"], "--draft-delay is 960 ms"),
    ],
)
def test_trouble_is_one_line_and_exit_status_1(
    arguments: Sequence[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.srt").write_text("mine")
    filled = [argument.format(here="mine.srt") for argument in arguments]
    status = main(["--demo", *filled], portaudio=FakePortAudio(Mic=16_000.0))
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 1
    assert re.match("voxmlx: error: ", line)
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["mine.srt"]
    assert (tmp_path / "mine.srt").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "talk.doc"],
        ["--record", "talk.mp3"],
        ["--realtime"],
        ["--realtime", "--input", "-"],
        ["--device", "1", "--input", "talk.wav"],
        ["--demo", "--model", "elsewhere"],
        ["--output", "talk.srt", "--output", "./talk.srt"],
        ["--output", "talk.srt", "--output", "nowhere/../talk.srt"],
        ["--out", "talk.srt"],
        ["--plai"],
        ["--channel", "0"],
        ["--channel", "left"],
    ],
)
def test_wrong_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


def test_a_missing_microphone_is_reported_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model of 3 GB was asked for")

    monkeypatch.setattr("voxmlx.live.local_sessions.load_model", load)
    nothing, one = FakePortAudio(), FakePortAudio(Mic=44_100.0)
    assert main(["--model", "some/model"], portaudio=nothing) == 1
    assert "there is no microphone" in capsys.readouterr().err
    assert main(["--model", "some/model", "--device", "Nope"], portaudio=one) == 1
    assert "--device Nope is no input device" in capsys.readouterr().err
