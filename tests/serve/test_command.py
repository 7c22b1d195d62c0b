"""`python -m voxmlx.serve` as a person runs it: where it is, why it is not, its end."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from websockets.sync.client import connect

from tests.serve.loopback import PATIENCE_S, said, sound
from voxmlx.audio.files import open_audio
from voxmlx.demo import SAMPLE
from voxmlx.serve.__main__ import main


@contextmanager
def started(
    *arguments: str, told: list[str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command with the demo's model on a free port, and its address.

    What it says before that is appended to `told`.
    """
    command = [sys.executable, "-m", "voxmlx.serve", "--demo", "--port", "0"]
    with subprocess.Popen(
        [*command, *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            while "voxmlx: demo" not in line and line:  # of keys, of other doors
                if told is not None:
                    told.append(line)
                line = process.stderr.readline()
            found = re.fullmatch(
                r"voxmlx: demo on (https?://\S+) \(Ctrl-C .*\)\n", line
            )
            assert found, line
            yield process, found[1]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_when_clients_have_heard_their_last_words(
    number: signal.Signals,
) -> None:
    with open_audio(SAMPLE) as audio:
        samples = next(audio.pieces(3.0))
    with started() as (process, url):
        assert httpx.get(f"{url}/health", timeout=PATIENCE_S).json()["status"] == "ok"
        with connect(f"{url.replace('http', 'ws')}/v1/realtime") as websocket:
            for message in sound(samples):
                websocket.send(message)
            websocket.send("is all of it there?")
            said(websocket, "error")
            process.send_signal(number)
            text = said(websocket, "transcription.done")[-1]["text"]
        assert text.split()[:4] == ["seven", "oh", "seven", "zero"]
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def wyoming_port(told: list[str]) -> int:
    """The port that the command said it speaks Wyoming on."""
    (found,) = re.findall(
        r"Wyoming on tcp://127\.0\.0\.1:(\d+), without keys", told[-1]
    )
    return int(found)


def test_a_signal_ends_it_when_wyomings_clients_have_heard_the_transcript() -> None:
    told: list[str] = []
    with (
        started("--wyoming-port", "0", told=told) as (process, _),
        socket.create_connection(("127.0.0.1", wyoming_port(told))) as one,
    ):
        one.sendall(
            b'{"type": "audio-chunk", "payload_length": 64000}\n' + bytes(64_000)
        )
        one.sendall(b'{"type": "ping"}\n')
        with one.makefile("rb") as answer:
            assert b"pong" in answer.readline()
            process.send_signal(signal.SIGTERM)
            rest = answer.read()
        assert rest.endswith(b'{"type": "transcript-stop", "version": "1.5.0"}\n')
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_wyoming_beyond_this_machine_is_asked_for_and_warned_of() -> None:
    told: list[str] = []
    with started(
        "--wyoming-port", "0", "--wyoming-host", "0.0.0.0", "--api-key", "k", told=told
    ):
        pass
    assert "can use Wyoming, which has no keys" in told[0]


def test_a_model_is_served_by_the_names_that_it_is_given() -> None:
    names = ("--served-model-name", "demo", "--served-model-name", "stt")
    with started(*names) as (_, url):
        models = httpx.get(f"{url}/v1/models", timeout=PATIENCE_S).json()["data"]
        assert [one["id"] for one in models] == ["demo", "stt"]
        assert httpx.get(f"{url}/v1/models/stt", timeout=PATIENCE_S).status_code == 200


def test_other_machines_are_let_in_with_a_key_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VOXMLX_API_KEY", "secret")
    with started("--host", "0.0.0.0") as (_, url):
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/models", timeout=PATIENCE_S).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=PATIENCE_S)
        assert json.loads(answer.text)["data"][0]["id"] == "demo"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "{taken}"], "port {taken} of 127.0.0.1 is in use; choose another"),
        (["--wyoming-port", "{taken}"], "in use; choose another --wyoming-port"),
        (
            ["--wyoming-port", "0", "--wyoming-host", "203.0.113.1"],
            "--wyoming-host 203.0.113.1 is no address of this machine",
        ),
        (["--host", "no.such.invalid"], "--host no.such.invalid is no address of this"),
        (["--host", "203.0.113.1"], "--host 203.0.113.1 is no address of this machine"),
        (["--delay", "100"], "use one of 80, 160, 240"),
        (["--model", "/nowhere"], "no directory '/nowhere'"),
    ],
)
def test_trouble_is_one_line_and_exit_status_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        filled = [argument.format(taken=taken) for argument in arguments]
        model = [] if "--model" in filled else ["--demo"]
        port = [] if "--port" in filled else ["--port", "0"]
        assert main([*model, *port, *filled]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("voxmlx: error: ")
    assert message.format(taken=taken) in line


def test_the_extra_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "voxmlx.serve.metrics", raising=False)
    assert main(["--demo", "--port", "0"]) == 1
    assert "pip install 'voxmlx-realtime[serve]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "70000"],
        ["--port", "-1"],
        ["--max-sessions", "0"],
        ["--idle", "x"],
        ["--wyoming-port", "x"],
        ["--wyoming-port", "65536"],
        ["--wyoming-host", "0.0.0.0"],
        ["--served-model-name", ""],
        ["--served-model-name", "a\nb"],
    ],
)
def test_wrong_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--demo", *arguments])


@pytest.mark.parametrize("key", ["", " ", "\t\n", " secret", "secret\n", "se\0cret"])
def test_a_key_that_no_client_can_send_never_opens_the_server(
    key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--demo", "--port", "0", "--api-key", key])
    assert "--api-key: the key " in capsys.readouterr().err
    if "\0" not in key:
        monkeypatch.setenv("VOXMLX_API_KEY", key)
        with pytest.raises(SystemExit, match="2"):
            main(["--demo", "--port", "0"])
        assert "VOXMLX_API_KEY: the key " in capsys.readouterr().err
