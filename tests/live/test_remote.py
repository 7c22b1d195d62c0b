"""`voxmlx.live --server`: what a server says comes out as if it were said here."""

import io
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
from websockets.sync.server import ServerConnection

from tests.live.vllm_like import VllmLike, listening
from tests.serve.loopback import PATIENCE_S, Loopback, serving, until
from voxmlx import Checkpoint, Session, Transcript, demo, load
from voxmlx.errors import ServerError
from voxmlx.live.__main__ import main
from voxmlx.live.server_connection import server_url
from voxmlx.web.limits import Limits

SAMPLE_TEXT = " ".join((demo.DIRECTORY / "sample.txt").read_text("utf-8").split())


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("demo", "float32")


@pytest.fixture(scope="module")
def server(checkpoint: Checkpoint) -> Iterator[Loopback]:
    with serving(checkpoint, max_sessions=2) as server:
        yield server


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes when it decodes on this machine."""
    directory = tmp_path_factory.mktemp("here")
    assert live(directory, "--demo", "--dtype", "float32") == 0
    return directory


def live(directory: Path, *arguments: str | Path) -> int:
    """Hear the sample; files of every kind go to the directory."""
    outputs = [directory / f"talk.{kind}" for kind in ("txt", "srt", "vtt", "jsonl")]
    named = [argument for path in outputs for argument in ("--output", str(path))]
    record = ("--record", str(directory / "talk.wav"))
    hear = ("--input", str(demo.SAMPLE))
    return main([*hear, *named, *record, *map(str, arguments)])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_our_server_gives_the_files_that_this_machine_gives(
    server: Loopback, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert live(tmp_path, "--server", server.ws) == 0
    assert capsys.readouterr().out.split() == SAMPLE_TEXT.split()
    for name in ("talk.txt", "talk.srt", "talk.vtt", "talk.wav"):
        assert (tmp_path / name).read_bytes() == (here / name).read_bytes()

    def told(directory: Path) -> list[dict[str, Any]]:
        events = lines(directory / "talk.jsonl")
        kinds = ("word", "utterance_end", "finished")
        return [event for event in events if event["type"] in kinds]

    assert told(tmp_path) == told(here)
    assert len(told(here)) > 40


def test_vllm_gives_the_same_words_and_times(
    checkpoint: Checkpoint, here: Path, tmp_path: Path
) -> None:
    with listening(VllmLike(checkpoint)) as url:
        assert live(tmp_path, "--server", url, "--model", "voxtral") == 0
    for name in ("talk.txt", "talk.srt", "talk.vtt", "talk.wav"):
        assert (tmp_path / name).read_bytes() == (here / name).read_bytes()


def drafts(directory: Path) -> list[str]:
    events = lines(directory / "talk.jsonl")
    return [event["text"] for event in events if event["type"] == "draft"]


def test_our_server_sends_the_draft_that_this_machine_has(
    server: Loopback, here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--draft-delay", "160", "--server", server.ws)
    assert live(tmp_path, *asked) == 0
    assert "drafts" not in capsys.readouterr().err
    for name in ("talk.txt", "talk.srt", "talk.vtt", "talk.wav"):
        assert (tmp_path / name).read_bytes() == (here / name).read_bytes()
    assert len(drafts(tmp_path)) > 10
    assert drafts(tmp_path)[-1] == ""
    assert drafts(here) == []


def test_a_server_without_drafts_is_told_of_once_and_serves_all_the_same(
    checkpoint: Checkpoint,
    here: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with listening(VllmLike(checkpoint)) as url:
        asked = ("--draft-delay", "160", "--model", "voxtral")
        assert live(tmp_path, "--server", url, *asked) == 0
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "drafts" in line] == [
        "voxmlx: this server sends no drafts; only text that stays is shown"
    ]
    assert drafts(tmp_path) == []
    for name in ("talk.txt", "talk.srt", "talk.vtt", "talk.wav"):
        assert (tmp_path / name).read_bytes() == (here / name).read_bytes()


def test_a_draft_that_the_servers_delay_does_not_allow_is_told(
    server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(server.ws, "--draft-delay", "480")  # its own delay
    assert "draft_delay_ms is 480, expected less than" in error_line(capsys)


def test_a_model_that_our_server_does_not_have_is_told(
    server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(server.ws, "--model", "another")
    assert "'another' is not served, 'demo' is" in error_line(capsys)


def test_a_file_is_sent_no_faster_than_a_server_reads(
    checkpoint: Checkpoint, here: Path, tmp_path: Path
) -> None:
    with serving(checkpoint, limits=Limits(max_waiting_ms=500)) as server:
        assert live(tmp_path, "--server", server.ws) == 0
    for name in ("talk.txt", "talk.srt"):
        assert (tmp_path / name).read_bytes() == (here / name).read_bytes()


def test_words_are_there_while_the_sound_still_comes(
    server: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, heard = tmp_path / "start.wav", tmp_path / "heard.txt"
    file = io.BytesIO()
    samples = soundfile.read(demo.SAMPLE)[0][: 5 * 16_000]
    soundfile.write(file, samples, 16_000, format="WAV")
    content, n_first = file.getvalue(), 44 + 4 * 32_000
    os.mkfifo(start)
    arguments = ["--server", server.ws, "--input", str(start), "--realtime"]
    is_there = threading.Event()

    def speak() -> None:
        with open(start, "wb") as pipe:
            pipe.write(content[:n_first])
            pipe.flush()
            until(lambda: heard.exists() and heard.stat().st_size > 10)
            is_there.set()
            pipe.write(content[n_first:])

    speaking = threading.Thread(target=speak)
    speaking.start()
    began = time.monotonic()
    assert main([*arguments, "--output", str(heard), "--stats"]) == 0
    took_ms = 1000 * (time.monotonic() - began)
    speaking.join()
    assert is_there.is_set()
    summary, stats = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"voxmlx: heard 0:05; lag \d+ ms, 95 % below \d+ ms", summary)
    assert 0 < json.loads(stats)["lag_p95_ms"] < took_ms


def test_ctrl_c_brings_out_the_words_already_spoken(
    server: Loopback, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    record = tmp_path / "heard.wav"
    options = ("--realtime", "--record", str(record))
    hear = ("--input", str(demo.SAMPLE), *options)
    command = [sys.executable, "-m", "voxmlx.live", "--server", server.ws, *hear]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: record.exists() and record.stat().st_size > 44 + 4 * 32_000)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert len(err.splitlines()) == 1, err
    session = Session(checkpoint)
    samples = soundfile.read(record, dtype="int16")[0]
    whole = Transcript.from_events(session.push(samples) + session.finish())
    assert out.strip() == whole.text
    assert len(out.split()) >= 4
    until(lambda: server.scheduler.n_slots == 0)


def test_a_dictionary_is_applied_here(
    server: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spelling = tmp_path / "spelling.txt"
    spelling.write_text("turn on = switch on\n")
    arguments = ["--server", server.ws, "--input", str(demo.SAMPLE)]
    assert main([*arguments, "--replace", str(spelling)]) == 0
    expected = SAMPLE_TEXT.replace("turn on", "switch on")
    assert capsys.readouterr().out.split() == expected.split()


# ------------------------------------------------------------- trouble


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one error there is."""
    errors = capsys.readouterr().err.splitlines()
    assert [line.startswith("voxmlx: error: ") for line in errors] == [True], errors
    return errors[0]


def fails(url: str, *arguments: str) -> bool:
    return main(["--server", url, "--input", str(demo.SAMPLE), *arguments]) == 1


def test_a_server_that_is_not_there_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as mute:  # it has the port, and does not listen
        mute.bind(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        assert fails(f"127.0.0.1:{port}")
    line = error_line(capsys)
    assert f"cannot reach the server ws://127.0.0.1:{port}/v1/realtime" in line
    assert "refused" in line


def test_a_wrong_key_is_told_and_the_right_one_is_let_in(
    checkpoint: Checkpoint,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(checkpoint, keys=("secret",)) as server:
        assert fails(server.ws, "--api-key", "guess")
        assert "--api-key" in error_line(capsys)
        monkeypatch.setenv("VOXMLX_API_KEY", "secret")
        assert not fails(server.ws)
        assert capsys.readouterr().out.split() == SAMPLE_TEXT.split()


def test_a_model_that_is_not_served_is_told(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(VllmLike(checkpoint)) as url:
        assert fails(url, "--model", "another")
    assert "The model `another` does not exist." in error_line(capsys)


def test_a_full_server_says_so(
    server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    until(lambda: server.scheduler.n_slots == 0)
    slots = [server.scheduler.open_slot(lambda _: None) for _ in range(2)]
    assert fails(server.ws)
    for slot in slots:
        slot.release()
    assert "all 2 sessions of this server are taken" in error_line(capsys)


@pytest.mark.parametrize(
    ("path", "message"),
    [("/health", "lets nobody in"), ("/v1/wrong", "lets nobody in")],
)
def test_what_is_no_such_server_is_told(
    server: Loopback, path: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(server.ws + path)
    assert message in error_line(capsys)


@pytest.mark.parametrize("hello", [b"", b"SSH-2.0-OpenSSH_9\r\n"])
def test_a_port_of_something_else_is_told(
    hello: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(hello)

        answering = threading.Thread(target=answer)
        answering.start()
        assert fails(f"ws://127.0.0.1:{listener.getsockname()[1]}")
        answering.join()
    assert re.search("cannot reach|no such server", error_line(capsys))


def abort(websocket: ServerConnection) -> None:
    websocket.socket.shutdown(socket.SHUT_RDWR)


def speak_no_json(websocket: ServerConnection) -> None:
    websocket.send("<html>")


def nest_without_end(websocket: ServerConnection) -> None:
    websocket.send("[" * 100_000)


def make_no_sense(websocket: ServerConnection) -> None:
    websocket.send(json.dumps({"type": "transcription.delta"}))


def fail(websocket: ServerConnection) -> None:
    websocket.send(json.dumps({"type": "error", "error": "out of memory"}))


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (abort, "has ended the connection"),
        (ServerConnection.close, "has ended the connection (code 1000)"),
        (speak_no_json, "speaks no JSON"),
        (nest_without_end, "speaks no JSON"),
        (make_no_sense, "is not understood"),
        (fail, "says: out of memory"),
    ],
)
def test_what_was_heard_before_a_server_broke_off_is_kept(
    trouble: Any,
    message: str,
    checkpoint: Checkpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # In the middle of the sample, and of a sentence.
    vllm = VllmLike(checkpoint, n_tokens=80, trouble=trouble)
    with listening(vllm) as url:
        never = ("--reconnect", "0")
        assert live(tmp_path, "--server", url, "--model", "voxtral", *never) == 1
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert message in line
    said = vllm.text.split()[:6]
    assert len(said) == 6
    assert out.split()[:6] == said
    assert out.endswith("\n")
    assert (tmp_path / "talk.txt").read_text("utf-8") == out
    cues = pysrt.open(str(tmp_path / "talk.srt"))
    assert " ".join(cue.text for cue in cues).split() == out.split()
    assert soundfile.info(tmp_path / "talk.wav").duration > 5


def test_a_server_that_shuts_down_says_its_last_words(
    checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = tmp_path / "heard.txt"

    def end() -> None:
        until(lambda: heard.exists() and len(heard.read_text("utf-8").split()) >= 5)
        server.end()

    with serving(checkpoint, limits=Limits(grace_s=PATIENCE_S)) as server:
        ending = threading.Thread(target=end)
        ending.start()
        options = ("--realtime", "--reconnect", "0", "--output", str(heard))
        assert fails(server.ws, *options)
        ending.join()
    out, err = capsys.readouterr()
    assert "it may be shutting down" in err.splitlines()[-1]
    said = out.split()
    assert len(said) >= 5
    # The last one may not have been heard to its end.
    assert said[:-1] == SAMPLE_TEXT.split()[: len(said) - 1]


def test_a_server_that_says_nothing_more_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("voxmlx.live.remote._END_S", 0.5)

    def mute(websocket: ServerConnection) -> None:
        websocket.send(json.dumps({"type": "session.created"}))
        for _ in websocket:
            pass

    with listening(mute) as url:
        assert fails(url)
    assert "has said nothing for 0.5 s" in error_line(capsys)


def test_the_extra_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "websockets.exceptions", None)
    assert fails("ws://127.0.0.1:1")
    assert "voxmlx-realtime[serve]" in error_line(capsys)


@pytest.mark.parametrize(
    "address", ["ftp://there", "ws://", "ws://there:port", "there:99999", "ws://[::1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ServerError, match="expected ws://HOST:PORT"):
        server_url(address)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("there:8000", "ws://there:8000/v1/realtime"),
        ("http://there:8000/", "ws://there:8000/v1/realtime"),
        ("https://there", "wss://there/v1/realtime"),
        ("wss://there/asr?x=1", "wss://there/asr?x=1"),
    ],
)
def test_an_address_needs_no_more_than_a_name(address: str, url: str) -> None:
    assert server_url(address) == url


@pytest.mark.parametrize(
    "option", [("--kv-bits", "8"), ("--no-guards",), ("--alternatives", "2")]
)
def test_what_only_a_model_here_knows_is_refused(option: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--server", "ws://127.0.0.1:1", *option])
