"""`voxmlx.live --server` goes on when its server has been away."""

import http
import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import websockets.sync.client
from websockets.sync.server import ServerConnection, serve

from tests.live.relay import relaying
from tests.live.test_remote import abort, error_line, lines
from tests.live.vllm_like import VllmLike, listening
from tests.serve.loopback import PATIENCE_S, Loopback, serving
from voxmlx import Checkpoint, demo, load
from voxmlx.live.__main__ import main
from voxmlx.web.limits import Limits

NAMES = ("talk.txt", "talk.srt", "talk.vtt", "talk.wav")

# What a server says of the first sentence, in bytes.
MIDDLE = 2500


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("demo", "float32")


@pytest.fixture(scope="module")
def server(checkpoint: Checkpoint) -> Iterator[Loopback]:
    with serving(checkpoint) as server:
        yield server


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first nine seconds of the sample."""
    path = tmp_path_factory.mktemp("sound") / "talk.wav"
    soundfile.write(path, soundfile.read(demo.SAMPLE)[0][: 9 * 16_000], 16_000)
    return path


def live(talk: Path, directory: Path, *arguments: str) -> int:
    """Hear the sound; files of every kind go to the directory."""
    outputs = [directory / f"talk.{kind}" for kind in ("txt", "srt", "vtt", "jsonl")]
    named = [argument for path in outputs for argument in ("--output", str(path))]
    record = ("--record", str(directory / "talk.wav"))
    return main(["--input", str(talk), *named, *record, *arguments])


def fails(url: str, talk: Path, *arguments: str) -> bool:
    return main(["--server", url, "--input", str(talk), *arguments]) == 1


@pytest.fixture(scope="module")
def here(talk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes when it decodes on this machine."""
    directory = tmp_path_factory.mktemp("here")
    assert live(talk, directory, "--demo", "--dtype", "float32") == 0
    return directory


def same_files(directory: Path, here: Path) -> None:
    for name in NAMES:
        assert (directory / name).read_bytes() == (here / name).read_bytes(), name


def told(directory: Path) -> list[dict[str, Any]]:
    kinds = ("word", "utterance_end", "finished")
    return [e for e in lines(directory / "talk.jsonl") if e["type"] in kinds]


def test_a_server_that_is_killed_and_started_again_costs_no_word(
    server: Loopback,
    talk: Path,
    here: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def restart() -> None:
        relay.cut()
        time.sleep(1)
        relay.open()

    with relaying(server.port) as relay, relay.after(MIDDLE, restart):
        assert live(talk, tmp_path, "--server", relay.address) == 0
        assert relay.n_connections == 2
    same_files(tmp_path, here)
    assert told(tmp_path) == told(here)  # confidence too
    lost, again, summary = capsys.readouterr().err.splitlines()
    assert "has ended the connection; trying again for 120 s, sound is kept" in lost
    assert re.search(r"there again after \d+ s; nothing is lost", again)
    assert summary.startswith("voxmlx: heard 0:09")


@pytest.mark.slow
def test_vllm_may_break_off_several_times(
    checkpoint: Checkpoint, talk: Path, here: Path, tmp_path: Path
) -> None:
    vllm = VllmLike(checkpoint, n_tokens=40)
    n_breaks = 0

    def trouble(websocket: ServerConnection) -> None:
        nonlocal n_breaks
        n_breaks += 1
        vllm.n_tokens = {1: 60, 2: 70}.get(n_breaks, 1 << 30)
        abort(websocket)

    vllm.trouble = trouble
    with listening(vllm) as url:
        assert live(talk, tmp_path, "--server", url, "--model", "voxtral") == 0
    assert n_breaks == 3
    same_files(tmp_path, here)


def test_a_server_that_shuts_down_for_a_while_costs_no_word(
    checkpoint: Checkpoint, server: Loopback, talk: Path, here: Path, tmp_path: Path
) -> None:
    # Its last words are about half a word, and silence that nobody has sent.
    limits = Limits(grace_s=PATIENCE_S)
    with serving(checkpoint, limits=limits) as first, relaying(first.port) as relay:

        def end() -> None:
            relay.target = server.port
            first.end()

        with relay.after(MIDDLE, end):
            assert live(talk, tmp_path, "--server", relay.address, "--realtime") == 0
    same_files(tmp_path, here)


@pytest.mark.slow
def test_a_silent_connection_is_given_up(
    server: Loopback,
    talk: Path,
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("voxmlx.live.server_connection._PING_S", 0.5)
    monkeypatch.setattr("voxmlx.live.remote._FILE_PING_TIMEOUT_S", 0.5)

    def fall_silent() -> None:
        relay.is_mute = True

    with relaying(server.port) as relay, relay.after(MIDDLE, fall_silent):
        assert live(talk, tmp_path, "--server", relay.address) == 0
    same_files(tmp_path, here)
    assert "does not answer any more (ping timeout)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_server_without_a_place_is_asked_again(
    checkpoint: Checkpoint, talk: Path, here: Path, tmp_path: Path
) -> None:
    answers = [None, 503, 503, 502]

    def process(websocket: ServerConnection, _: Any) -> Any:
        status = answers.pop(0) if answers else None
        if status is not None:
            return websocket.respond(http.HTTPStatus(status), "full\n")
        return None

    vllm = VllmLike(checkpoint, n_tokens=40, trouble=abort)
    with serve(vllm, "127.0.0.1", 0, process_request=process) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{listening.socket.getsockname()[1]}"
        assert live(talk, tmp_path, "--server", url, "--model", "voxtral") == 0
        listening.shutdown()
        thread.join()
    assert answers == []
    same_files(tmp_path, here)


def test_a_key_that_is_refused_is_not_tried_again(
    checkpoint: Checkpoint,
    server: Loopback,
    talk: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    strict = serving(checkpoint, keys=("other",))
    with strict as other, relaying(server.port) as relay:

        def change() -> None:
            relay.target = other.port
            relay.drop()

        with relay.after(MIDDLE, change):
            assert fails(relay.address, talk)
        assert relay.n_connections == 2
    out, err = capsys.readouterr()
    assert "HTTP 401" in err.splitlines()[-1]
    assert "tried for" not in err
    assert len(out.split()) > 3


def test_a_server_that_stays_away_is_told_with_what_was_heard(
    server: Loopback, talk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    with relaying(server.port) as relay, relay.after(MIDDLE, relay.cut):
        assert fails(relay.address, talk, "--reconnect", "2")
    assert time.monotonic() - started < 100  # 120 s are the default
    out, err = capsys.readouterr()
    _, error = err.splitlines()
    assert "cannot reach" in error
    assert "tried for 2 s (--reconnect)" in error
    assert len(out.split()) > 3


def test_a_server_that_lets_us_in_and_breaks_off_is_not_tried_for_ever(
    talk: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    n = 0

    def greet(websocket: ServerConnection) -> None:
        nonlocal n
        n += 1
        websocket.send(json.dumps({"type": "session.created"}))
        websocket.recv()

    with listening(greet) as url:
        assert fails(url, talk, "--reconnect", "3")
    assert 2 <= n <= 5
    assert "has ended the connection" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_sound_beyond_what_is_kept_is_said_to_be_lost(
    server: Loopback,
    talk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("voxmlx.live.remote._KEPT_SAMPLES", 2 * 16_000)
    with relaying(server.port) as relay, relay.after(MIDDLE, relay.drop):
        assert not fails(relay.address, talk)
    out, err = capsys.readouterr()
    assert re.search(r"; [67] s of sound are lost", err)
    assert len(out.split()) > 3


def test_the_first_connection_is_not_tried_again(
    talk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    n_attempts = 0
    connect = websockets.sync.client.connect

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal n_attempts
        n_attempts += 1
        return connect(*arguments, **options)

    monkeypatch.setattr("websockets.sync.client.connect", counted)
    assert fails("ws://127.0.0.1:1", talk)
    assert n_attempts == 1
    assert "refused" in error_line(capsys)
