"""What one client may take of the server: bytes, time and numbers, and no more."""

import base64
import contextlib
import errno
import http.client
import json
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import websockets.exceptions
from websockets.sync.client import connect

from tests.held import held_bytes
from tests.serve.loopback import PATIENCE_S, Loopback, said, serving, until
from tests.serve.test_command import started
from tests.serve.test_hostile import UPGRADE
from tests.serve.test_requests import TRANSCRIPTIONS, post, wav
from tests.sounds import speech_like
from voxmlx import Checkpoint, Session
from voxmlx.serve.slot import Slot
from voxmlx.serve.sound_reader import SoundReader
from voxmlx.web.limits import Limits
from voxmlx.web.listening import raise_open_files

HALF = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
WHOLE = HALF + b"\r\n"


@contextmanager
def dialled(
    server: Loopback, said_first: bytes = b"", n: int = 1
) -> Iterator[list[socket.socket]]:
    """So many connections on which something was said."""
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.port)
        plain = [
            stack.enter_context(socket.create_connection(address, PATIENCE_S))
            for _ in range(n)
        ]
        for one in plain:
            one.sendall(said_first)
        yield plain


def is_closed(plain: socket.socket) -> bool:
    """Whether the server has ended the connection; what it sent is thrown away."""
    plain.setblocking(False)
    try:
        while plain.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


# ---------------------------------------------------- connections and heads


@pytest.mark.parametrize(
    "said_first", [b"", b"G", HALF, WHOLE + HALF, WHOLE + WHOLE, b"\r\n"]
)
def test_a_head_that_does_not_come_is_not_waited_for(
    tiny_checkpoint: Checkpoint, said_first: bytes
) -> None:
    limits = Limits(head_s=0.3)
    with serving(tiny_checkpoint, keys=("secret",), limits=limits) as server:
        # After a whole request, uvicorn's own five seconds.
        is_let_go = server.lets_all_go(10 if WHOLE in said_first else 4)
        with dialled(server, said_first) as (plain,):
            assert is_let_go.result(PATIENCE_S)
            until(lambda: is_closed(plain))


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(
    tiny_checkpoint: Checkpoint,
) -> None:
    with serving(tiny_checkpoint, limits=Limits(head_s=0.5)) as server:
        is_let_go = server.lets_all_go(5)
        with dialled(server, WHOLE) as (plain,):
            with contextlib.suppress(ConnectionError):
                for byte in HALF * 1000:
                    plain.sendall(bytes([byte]))
                    time.sleep(0.05)
                    if is_let_go.done():
                        break
            assert is_let_go.result(PATIENCE_S)


def test_those_who_only_wait_make_room_for_who_asks(
    tiny_checkpoint: Checkpoint,
) -> None:
    limits = Limits(max_connections=10, head_s=600)
    with (
        serving(tiny_checkpoint, limits=limits) as server,
        dialled(server, HALF, n=40) as waiting,
    ):
        # Who may wait for a head may do so for ten minutes.
        health = httpx.get(f"{server.http}/health", timeout=PATIENCE_S)
        assert health.status_code == 200
        until(lambda: sum(map(is_closed, waiting)) >= 30)
        assert not is_closed(waiting[-1]), "the longest make room first"


def test_connections_that_are_all_busy_are_told_of(
    tiny_checkpoint: Checkpoint,
) -> None:
    limits = Limits(max_connections=2)
    with serving(tiny_checkpoint, limits=limits) as server:
        with (
            connect(f"{server.ws}/v1/realtime"),
            connect(f"{server.ws}/v1/realtime"),
        ):
            answer = httpx.get(f"{server.http}/health", timeout=PATIENCE_S)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "too_many_connections"
        until(lambda: server.service.n_connections == 0)
        health = httpx.get(f"{server.http}/health", timeout=PATIENCE_S)
        assert health.status_code == 200


def test_a_process_may_open_as_many_files_as_the_system_lets_it() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        n = raise_open_files()
        assert n > 256 or before[1] == 256
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == n
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_client_that_reads_nothing_is_given_up(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A slot is not kept for a stream of events that nobody reads.
    limits = Limits(write_s=0.5, max_unread_events=50)
    sound = wav(speech_like(120 * 16_000, seed=1).astype(np.float32))
    fields = b'--x\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = fields + head + sound + b"\r\n--x--\r\n"
    slots: list[Slot] = []
    with serving(tiny_checkpoint, limits=limits) as server, socket.socket() as plain:
        open_slot = server.scheduler.open_slot

        def noted(*arguments: Any) -> Slot:
            slots.append(open_slot(*arguments))
            return slots[-1]

        monkeypatch.setattr(server.scheduler, "open_slot", noted)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", server.port))
        plain.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        until(lambda: len(slots) == 1)
        until(lambda: server.scheduler.n_slots == 0)


# ------------------------------------------------------- messages and frames


def frame(opcode: int, payload: bytes = b"", *, is_final: bool = True) -> bytes:
    """A masked frame of a websocket; the mask is zero."""
    assert len(payload) < 126
    head = bytes([opcode | (0x80 if is_final else 0), 0x80 | len(payload)])
    return head + bytes(4) + payload


FLOODS = {
    "pings": frame(9, b"x" * 120),
    "pongs": frame(10),
    "empty parts of a message": frame(0, is_final=False),
    "small parts of a message": frame(0, b"x", is_final=False),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_frames_that_are_no_message_is_ended(
    tiny_checkpoint: Checkpoint, flood: str
) -> None:
    with serving(tiny_checkpoint) as server, dialled(server, UPGRADE) as (plain,):
        assert plain.recv(65_536).startswith(b"HTTP/1.1 101 ")
        plain.sendall(frame(1, b"{", is_final=False))
        before = psutil.Process().memory_info().rss
        n_sent = 0
        with contextlib.suppress(ConnectionError, TimeoutError):
            plain.settimeout(PATIENCE_S)
            for _ in range(2000):
                plain.sendall(FLOODS[flood] * 500)
                n_sent += 500
        assert n_sent < 1_000_000
        until(lambda: server.scheduler.n_slots == 0)
        assert psutil.Process().memory_info().rss - before < 30 << 20


def test_a_message_in_many_parts_and_some_pings_are_taken(
    tiny_checkpoint: Checkpoint,
) -> None:
    with (
        serving(tiny_checkpoint) as server,
        # A client that keeps few messages reads no pongs behind them.
        connect(
            f"{server.ws}/v1/realtime", ping_interval=None, max_queue=None
        ) as websocket,
    ):
        sound = base64.b64encode(bytes(300_000)).decode()
        text = json.dumps({"type": "input_audio_buffer.append", "audio": sound})
        websocket.send(text[i : i + 400] for i in range(0, len(text), 400))
        for _ in range(50):
            assert websocket.ping().wait(PATIENCE_S)
        websocket.send('{"type": "input_audio_buffer.commit", "final": true}')
        said(websocket, "transcription.done")


@pytest.mark.parametrize(
    "path", ["/v1/realtime?intent=transcription", "/v1/realtime", "/v1/audio/"]
)
def test_long_texts_are_refused_and_not_echoed(
    tiny_checkpoint: Checkpoint, path: str
) -> None:
    long = "x" * 300
    transcription = {"input": {"transcription": {"language": long}}}
    messages = {
        "/v1/realtime?intent=transcription": [
            {"type": "session.update", "session": {"audio": transcription}},
            {"type": "session.update", "event_id": long, "session": {}},
        ],
        "/v1/realtime": [
            {"type": "session.update", "hotwords": [long]},
            {"type": "session.update", "model": long},
        ],
        "/v1/audio/": [{"type": "session.update", "session": {"context_bias": [long]}}],
    }[path]
    if path == "/v1/audio/":
        path += "transcriptions/realtime"
    with serving(tiny_checkpoint) as server:
        for message in messages:
            with connect(f"{server.ws}{path}") as websocket:
                websocket.send(json.dumps(message))
                error = said(websocket, "error")[-1]
                assert "300 characters, expected at most 256" in json.dumps(error)
                assert "x" * 257 not in json.dumps(error)


def test_a_message_of_more_than_a_megabyte_ends_its_connection(
    tiny_checkpoint: Checkpoint,
) -> None:
    with (
        serving(tiny_checkpoint) as server,
        connect(f"{server.ws}/v1/realtime") as websocket,
    ):
        message = {"type": "session.update", "session": {"language": "x" * 15_000_000}}
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            websocket.send(json.dumps(message))
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            said(websocket, "none")
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


def test_samples_that_come_one_by_one_take_no_more_memory(
    tiny_checkpoint: Checkpoint,
) -> None:
    sound = speech_like(20_000, seed=1)
    session = Session(tiny_checkpoint)
    for sample in sound:
        session.timeline.push(sample[None])
    empty = Session(tiny_checkpoint)
    assert held_bytes(session.timeline) < held_bytes(empty.timeline) + 2 * sound.nbytes
    one_by_one = session.push(np.zeros(0, np.float32)) + session.finish()
    at_once = Session(tiny_checkpoint)
    assert one_by_one == at_once.push(sound) + at_once.finish()


# ------------------------------------------------------------------ uploads


@contextmanager
def begun(
    server: Loopback, n_bytes: int, **headers: str
) -> Iterator[http.client.HTTPConnection]:
    """An upload of which only the head is sent."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", server.port, timeout=PATIENCE_S
    )
    connection.putrequest("POST", TRANSCRIPTIONS)
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(n_bytes))
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        yield connection
    finally:
        connection.close()


FILE_HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


def test_a_slot_is_asked_for_before_a_body_is_taken(
    tiny_checkpoint: Checkpoint,
) -> None:
    with serving(tiny_checkpoint, max_sessions=1) as server:
        slot = server.scheduler.open_slot(lambda _: None)
        with begun(server, 100 << 20, Expect="100-continue") as connection:
            answer = connection.getresponse()
            assert answer.status == 503
            assert json.load(answer)["error"]["code"] == "at_capacity"
        slot.release()
        with begun(server, 100 << 20) as connection:
            connection.send(FILE_HEAD)
            until(lambda: server.scheduler.n_slots == 1)


def test_a_refusal_can_be_read_by_who_still_sends(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A client that stands still for two seconds is no part of this.
    monkeypatch.setattr("voxmlx.web.sockets._REST_S", PATIENCE_S)
    with (
        serving(tiny_checkpoint, keys=("secret",)) as server,
        httpx.Client(base_url=server.http, timeout=PATIENCE_S) as client,
    ):
        for _ in range(5):
            answer = post(client, bytes(3 << 20))
            assert answer.status_code == 401


def test_files_of_all_clients_have_one_bound(tiny_checkpoint: Checkpoint) -> None:
    limits = Limits(max_upload_bytes=1 << 20)
    with serving(tiny_checkpoint, limits=limits) as server:
        with begun(server, 900_000) as connection:
            connection.send(FILE_HEAD + bytes(800_000))
            until(lambda: server.service.n_upload_bytes > 800_000)
            with begun(server, 500_000) as other:
                answer = other.getresponse()
                assert answer.status == 503
                assert answer.headers["retry-after"] == "1"
        until(lambda: server.service.n_upload_bytes == 0)
        answer = httpx.post(f"{server.http}{TRANSCRIPTIONS}", timeout=PATIENCE_S)
        assert answer.status_code == 400


def test_a_body_that_trickles_is_not_waited_for(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxmlx.serve.upload_body._FREE_S", 0.5)
    with serving(tiny_checkpoint) as server, begun(server, 1_000_000) as connection:
        connection.send(FILE_HEAD)
        # Each piece comes long before a body is idle, so nothing else ends it.
        end = time.monotonic() + PATIENCE_S
        while not select.select([connection.sock], [], [], 0.05)[0]:
            assert time.monotonic() < end
            connection.send(b"x" * 10)
        assert connection.getresponse().status == 408


def test_no_file_of_a_client_has_a_name(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What has no name is gone with the process, however that ends.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with serving(tiny_checkpoint) as server, begun(server, 3 << 20) as connection:
        connection.send(FILE_HEAD + bytes(2 << 20))
        until(lambda: server.service.n_upload_bytes > 1 << 20)
        assert list(tmp_path.iterdir()) == []


def refused(error: OSError) -> Callable[[SoundReader, bytes], Awaitable[None]]:
    async def write(_: SoundReader, __: bytes) -> None:
        raise error

    return write


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 507, "insufficient_storage"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 507, "insufficient_storage"),
        (OSError(errno.EMFILE, "Too many open files"), 503, "unavailable"),
        (PermissionError(errno.EACCES, "Permission denied"), 503, "unavailable"),
        (TimeoutError(), 503, "unavailable"),
    ],
)
def test_what_the_system_refuses_is_an_error_object(
    tiny_checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    status: int,
    code: str,
) -> None:
    with (
        serving(tiny_checkpoint) as server,
        httpx.Client(base_url=server.http, timeout=PATIENCE_S) as client,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(SoundReader, "write", refused(error))
            answer = post(client)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert "Traceback" not in answer.text
        until(lambda: server.scheduler.n_slots == 0)
        assert post(client).status_code == 200


def test_a_mistake_of_ours_is_an_error_object(
    tiny_checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a mistake")

    with serving(tiny_checkpoint) as server:
        monkeypatch.setattr("voxmlx.serve.transcriptions.read_params", fail)
        with httpx.Client(base_url=server.http, timeout=PATIENCE_S) as client:
            answer = post(client)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "server_error"
    assert "mistake" not in answer.text


def test_a_full_disk_is_told_to_the_client_and_outlived() -> None:
    with started() as (process, url):
        # A disk is full where no file may grow.
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_FSIZE, (100_000, 100_000))
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
            answer = post(client, wav(speech_like(10 * 16_000, seed=1)))
            assert answer.status_code == 507
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            assert client.get("/health").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_body_that_is_still_to_come_is_not_waited_for_at_the_end(
    tiny_checkpoint: Checkpoint,
) -> None:
    limits = Limits(body_idle_s=600, grace_s=600)
    with (
        serving(tiny_checkpoint, limits=limits) as server,
        begun(server, 5_000_000) as connection,
    ):
        connection.send(FILE_HEAD + bytes(100_000))
        until(lambda: server.scheduler.n_slots == 1)
        server.end()
        answer = connection.getresponse()
        assert answer.status == 503
        assert json.load(answer)["error"]["code"] == "shutting_down"


def n_sessions(url: str) -> int:
    return httpx.get(f"{url}/health", timeout=PATIENCE_S).json()["sessions"]


def test_a_signal_during_an_upload_is_an_error_object() -> None:
    with started() as (process, url):
        port = int(url.rpartition(":")[2])
        answers: list[bytes] = []

        def upload() -> None:
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as plain:
                plain.sendall(
                    b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    b"Content-Type: multipart/form-data; boundary=x\r\n"
                    b"Content-Length: 5000000\r\n\r\n" + FILE_HEAD + bytes(100_000)
                )
                until(lambda: n_sessions(url) == 1)
                process.send_signal(signal.SIGTERM)
                got = b""
                with contextlib.suppress(ConnectionError):
                    while piece := plain.recv(65_536):
                        got += piece
                answers.append(got)

        uploading = threading.Thread(target=upload)
        uploading.start()
        uploading.join(PATIENCE_S)
        assert process.wait(PATIENCE_S) == 0
        (answer,) = answers
        assert answer.startswith(b"HTTP/1.1 503 ")
        _, _, body = answer.partition(b"\r\n\r\n")
        assert json.loads(body)["error"]["code"] == "shutting_down"
        assert process.stderr is not None
        assert process.stderr.read() == ""
