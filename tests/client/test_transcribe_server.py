"""`voxmlx transcribe --server`: files that a server transcribes, ours or another's."""

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pysrt
import pytest
import soundfile
from starlette.responses import JSONResponse, Response

from tests.client.fake_files_server import FakeServer, answering, vllm_error
from tests.serve.loopback import PATIENCE_S, Loopback, serving, until
from tests.sounds import speech_like
from voxmlx import Checkpoint, demo, load
from voxmlx.live.__main__ import main as live_main
from voxmlx.transcribe import main

WORDS = 'Well, "this" is said.'


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """A server that tells text alone, as vLLM does of this model."""
    with answering(FakeServer(words=WORDS)) as fake:
        yield fake


@pytest.fixture
def timed() -> Iterator[FakeServer]:
    """A server that tells times of words, as OpenAI's does of Whisper."""
    with answering(FakeServer(words=WORDS, forms=("json", "verbose_json"))) as fake:
        yield fake


@pytest.fixture
def talk(tmp_path: Path) -> str:
    return write_sound(tmp_path / "talk.wav")


def write_sound(path: Path, duration_s: float = 3.0) -> str:
    path.parent.mkdir(exist_ok=True, parents=True)
    soundfile.write(path, speech_like(round(16_000 * duration_s)), 16_000)
    return str(path)


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one error there is."""
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.startswith("voxmlx: error: ") for line in lines] == [True], lines
    return lines[0]


# ---------------------------------------------------------- a server of ours


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("demo", "float32")


@pytest.fixture(scope="module")
def ours(checkpoint: Checkpoint) -> Iterator[Loopback]:
    with serving(checkpoint) as server:
        yield server


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first nine seconds of the demo's sample."""
    path = tmp_path_factory.mktemp("sound") / "sample.flac"
    soundfile.write(path, soundfile.read(demo.SAMPLE)[0][: 9 * 16_000], 16_000)
    return str(path)


def test_our_server_gives_the_files_that_this_machine_gives(
    ours: Loopback, sample: str, tmp_path: Path
) -> None:
    formats = [a for f in ("txt", "srt", "vtt", "json") for a in ("--format", f)]
    options = [*formats, "--hotwords", str(tmp_path / "hot.txt")]
    (tmp_path / "hot.txt").write_text("heating\n")
    here, there = tmp_path / "here", tmp_path / "there"
    local = ("--demo", "--dtype", "float32")
    assert main([sample, *options, *local, "--output-dir", str(here)]) == 0
    remote = ("--server", ours.http, "--delay", "480")
    assert main([sample, *options, *remote, "--output-dir", str(there)]) == 0
    for name in ("sample.txt", "sample.srt", "sample.vtt"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    told = [json.loads((d / "sample.json").read_text("utf-8")) for d in (here, there)]
    for one in told:
        del one["tokens"]  # a server tells no ids
    assert told[0].pop("dtype") == "float32"  # nor its dtype
    assert told[0] == told[1]
    assert told[1]["delay_ms"] == 480


def test_a_model_that_our_server_does_not_have_is_told(
    ours: Loopback, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([talk, "--server", ours.http, "--model", "another"]) == 1
    assert "'another' is not served, 'demo' is" in error_of(capsys)


@pytest.mark.slow
def test_a_pipe_and_one_channel_give_the_same_text(
    ours: Loopback, sample: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([sample, "--server", ours.http]) == 0
    expected = capsys.readouterr().out
    assert len(expected.split()) > 8
    assert main([sample, "--server", ours.http, "--channel", "1"]) == 0
    assert capsys.readouterr().out == expected
    command = [sys.executable, "-m", "voxmlx.transcribe", "--server", ours.ws, "-"]
    with open(sample, "rb") as file:
        piped = subprocess.run(command, stdin=file, capture_output=True, text=True)
    assert (piped.stdout, piped.stderr) == (expected, "")


# ---------------------------------------------------------- other servers


def test_text_alone_is_enough_for_txt(
    fake: FakeServer, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([talk, "--server", fake.url]) == 0
    assert capsys.readouterr() == (f"{WORDS}\n", "")
    (taken,) = fake.received
    assert taken.fields == {"model": ["mistralai/voxtral"], "response_format": ["json"]}
    assert (taken.name, taken.content) == ("talk.wav", Path(talk).read_bytes())


@pytest.mark.parametrize("form", ["srt", "vtt", "json", "jsonl"])
def test_what_needs_times_is_refused_where_there_are_none(
    form: str, fake: FakeServer, talk: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    arguments = ["--server", fake.url, "--format", form, "--output-dir", str(out)]
    assert main([talk, *arguments]) == 1
    assert "tells text alone" in error_of(capsys)
    assert len(fake.received) == 1
    assert not out.exists() or not list(out.iterdir())


def test_words_with_times_become_subtitles(
    timed: FakeServer, talk: str, tmp_path: Path
) -> None:
    out = tmp_path / "talk.srt"
    assert main([talk, "--server", timed.url, "-o", str(out)]) == 0
    (cue,) = pysrt.open(str(out))
    assert (cue.text, cue.start.ordinal) == (WORDS, 0)
    assert timed.received[0].fields["timestamp_granularities[]"] == ["word", "segment"]


def test_times_of_segments_are_said_to_be_estimated(
    timed: FakeServer, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    timed.has_words = False
    assert main([talk, "--server", timed.url, "--format", "srt"]) == 0
    out, err = capsys.readouterr()
    assert WORDS in out
    assert "those of words are estimated" in err


def test_sound_that_not_all_servers_read_goes_as_flac(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = write_sound(tmp_path / "talk.aiff")
    assert main([talk, "--server", fake.url]) == 0
    assert capsys.readouterr().out == f"{WORDS}\n"
    (taken,) = fake.received
    assert (taken.name, taken.rate) == ("talk.flac", 16_000)
    assert taken.duration_s == pytest.approx(3)
    assert taken.content.startswith(b"fLaC")


def test_long_sound_goes_in_pieces_and_its_times_go_on(
    timed: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("voxmlx.client.sound_upload.MAX_BYTES_FOR_ALL", 1000)
    monkeypatch.setattr("voxmlx.client.sound_upload._PIECE_SAMPLES", 4 * 16_000)
    monkeypatch.setattr("voxmlx.client.sound_upload._CUT_SAMPLES", 16_000)
    talk = write_sound(tmp_path / "talk.wav", 10)
    assert main([talk, "--server", timed.url, "--format", "jsonl"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(taken.duration_s for taken in timed.received) == pytest.approx(10)
    starts = [event["start_ms"] for event in events if event["type"] == "word"]
    assert starts == sorted(starts)
    assert len(starts) == 4 * len(timed.received)
    assert events[-1] == {"type": "finished", "duration_ms": 10_000, "n_tokens": 0}


def test_a_file_that_a_server_cannot_read_is_decoded_here(
    fake: FakeServer, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.before = lambda n: vllm_error(500, "no decoder") if n == 0 else None
    assert main([talk, "--server", fake.url]) == 0
    assert capsys.readouterr() == (f"{WORDS}\n", "")
    assert [taken.name for taken in fake.received] == ["talk.flac"]


def test_a_file_that_a_server_never_reads_does_not_stop_the_others(
    fake: FakeServer, talk: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_sound(tmp_path / "z.wav")
    fake.before = lambda n: vllm_error(400, "too\nstrange") if n < 2 else None
    assert main([talk, other, "--server", fake.url, "--jobs", "1"]) == 1
    out, err = capsys.readouterr()
    assert out == f"==> {other} <==\n{WORDS}\n"
    (line,) = err.splitlines()
    assert f"{talk} is not read by the server (HTTP 400): too strange" in line


def test_folders_are_done_several_files_at_a_time_and_once(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for i in range(9):
        write_sound(folder / f"{i % 2}" / f"talk{i}.wav", 0.5)
    (folder / "notes.txt").write_text("no sound")
    write_sound(folder / ".hidden.wav")
    arguments = [str(folder), "--server", fake.url, "--output-dir", str(out)]
    fake.n_together = 3
    assert main([*arguments, "--jobs", "3"]) == 0
    texts = sorted(out.rglob("*.txt"))
    assert [path.name for path in texts] == [f"talk{i}.txt" for i in range(9)]
    assert {path.read_text("utf-8") for path in texts} == {f"{WORDS}\n"}
    assert fake.n_most == 3
    assert main([*arguments, "--skip-existing"]) == 0
    assert len(fake.received) == 9
    assert "9 of 9 inputs skipped" in capsys.readouterr().err


def test_printed_texts_stand_in_the_order_of_the_files(
    fake: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [write_sound(tmp_path / f"{i}.wav", 0.2) for i in range(5)]

    def before(n: int) -> Response | None:
        time.sleep(0.1 if n == 0 else 0)
        return None

    fake.before = before
    assert main([*names, "--server", fake.url]) == 0
    found = re.findall(r"==> (.*) <==\n", capsys.readouterr().out)
    assert found == names


# ---------------------------------------------------------- trouble


def test_a_full_server_is_asked_again(
    fake: FakeServer, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.before = lambda n: vllm_error(503, "all taken") if n < 2 else None
    assert main([talk, "--server", fake.url]) == 0
    out, err = capsys.readouterr()
    assert out == f"{WORDS}\n"
    assert len(err.splitlines()) == 1
    assert "talk.wav waits" in err
    assert fake.n_requests == 3


def test_a_server_that_stays_full_is_given_up(
    fake: FakeServer, talk: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.before = lambda n: vllm_error(503, "all taken")
    others = [write_sound(tmp_path / f"{i}.wav", 0.2) for i in range(3)]
    started = time.monotonic()
    arguments = ["--server", fake.url, "--reconnect", "2"]
    assert main([talk, *others, *arguments]) == 1
    assert time.monotonic() - started < 100  # 120 s are the default
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("voxmlx: error: ")
    assert "all taken; tried for 2 s (--reconnect)" in line


@pytest.mark.slow
def test_more_jobs_than_a_server_takes_wait_for_each_other(
    checkpoint: Checkpoint, sample: str, tmp_path: Path
) -> None:
    names = []
    for i in range(4):
        names.append(str(tmp_path / f"{i}.flac"))
        os.link(sample, names[-1])
    arguments = ["--reconnect", "60", "--jobs", "4", "--output-dir", str(tmp_path)]
    with serving(checkpoint, max_sessions=1) as server:
        assert main([*names, "--server", server.http, *arguments]) == 0
    texts = {(tmp_path / f"{i}.txt").read_text("utf-8") for i in range(4)}
    assert len(texts) == 1


def test_a_wrong_key_and_a_wrong_model_end_the_command(
    talk: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(FakeServer(key="right key")) as fake:
        assert main([talk, "--server", fake.url, "--api-key", "q+/wrong=="]) == 1
        line = error_of(capsys)
        assert "HTTP 401" in line
        assert "--api-key" in line
        assert "q+/wrong" not in line
        assert fake.n_requests == 0
        monkeypatch.setenv("VOXMLX_API_KEY", "right key")
        assert main([talk, "--server", fake.url, "--model", "another"]) == 1
        assert "The model `another` does not exist." in error_of(capsys)
        assert main([talk, "--server", fake.url]) == 0


def test_a_model_must_be_named_where_there_are_several(
    talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(FakeServer(models=("one", "two"))) as fake:
        assert main([talk, "--server", fake.url]) == 1
        assert "name it with --model: one, two" in error_of(capsys)
        assert main([talk, "--server", fake.url, "--model", "two"]) == 0


def test_a_server_that_is_not_there_is_told_at_once(
    talk: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    n_attempts = 0
    connect = socket.create_connection

    def counted(*arguments: Any, **options: Any) -> socket.socket:
        nonlocal n_attempts
        n_attempts += 1
        return connect(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", counted)
    with socket.socket() as mute:  # it has the port, and does not listen
        mute.bind(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        assert main([talk, "--server", f"127.0.0.1:{port}"]) == 1
    assert n_attempts == 1
    assert "cannot reach the server" in error_of(capsys)


def test_a_disk_that_is_full_is_told(
    fake: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(**_: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("voxmlx.client.sound_upload.tempfile.TemporaryFile", full)
    talk = write_sound(tmp_path / "talk.aiff")
    assert main([talk, "--server", fake.url]) == 1
    assert "talk.aiff cannot be sent: No space left" in error_of(capsys)


@pytest.mark.parametrize("kind", ["transcribe", "live"])
def test_https_where_there_is_none_is_told(
    kind: str, fake: FakeServer, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ["--server", fake.url.replace("http:", "https:")]
    run = {"transcribe": main, "live": live_main}[kind]
    assert run([*server, *(["--input"] if kind == "live" else []), talk]) == 1
    assert re.search(r"encrypted connection.*; is it (http|ws)://\?", error_of(capsys))


@pytest.mark.parametrize(
    "answer", [JSONResponse({"words": 3}), Response(b"<html>", 200), Response(b"\xff")]
)
def test_an_answer_that_makes_no_sense_is_told(
    answer: Response, fake: FakeServer, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.before = lambda n: answer
    assert main([talk, "--server", fake.url]) == 1
    assert "not of OpenAI's dialect" in error_of(capsys)


def test_ctrl_c_ends_all_uploads_and_leaves_nothing_half_written(
    fake: FakeServer, tmp_path: Path
) -> None:
    names = [write_sound(tmp_path / f"{i}.wav", 0.2) for i in range(3)]
    is_over = threading.Event()

    def before(n: int) -> Response | None:
        if n > 0:
            fake.n_most = 7
            time.sleep(0.5)
            while not is_over.is_set():
                time.sleep(0.05)
        return None

    fake.before = before
    out = tmp_path / "out"
    command = [sys.executable, "-m", "voxmlx.transcribe", "--server", fake.url]
    command += [*names, "--jobs", "1", "--output-dir", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: fake.n_most == 7)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
        is_over.set()
    assert process.returncode == 130
    assert err == ""
    assert [path.name for path in out.iterdir()] == ["0.txt"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--server", "http://127.0.0.1:1", "--kv-bits", "8"),
        ("--server", "http://127.0.0.1:1", "--no-speculation"),
        ("--server", "http://127.0.0.1:1", "--jobs", "0"),
        ("--server", "http://127.0.0.1:1", "--reconnect", "-1"),
        ("--server", "http://127.0.0.1:1", "--reconnect", "nan"),
        ("--jobs", "2"),
        ("--reconnect", "2"),
        ("--api-key", "x"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: tuple[str, ...], talk: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([talk, *arguments])


@pytest.mark.parametrize("key", ["", " ", "a\nb", " a"])
def test_a_key_that_no_header_carries_is_refused_and_not_shown(
    key: str, talk: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([talk, "--server", "http://127.0.0.1:1", "--api-key", key]) == 1
    assert "no HTTP header can carry it" in error_of(capsys)


def test_what_is_of_a_model_here_is_refused_with_a_server(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for option in (["--embedding-bits", "16"], ["--kv-bits", "8"]):
        with pytest.raises(SystemExit, match="2"):
            main(["talk.wav", "--server", "http://localhost:1", *option])
        assert "is about a model on this machine" in capsys.readouterr().err
