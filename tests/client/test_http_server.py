"""Requests: bodies in constant memory, early answers, dead servers."""

import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from voxmlx.client.http_server import HttpServer, Upload, base_url
from voxmlx.errors import ServerError


@contextmanager
def tcp(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does one thing with its first connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        thread.join()


def big_file(tmp_path: Path, n_bytes: int) -> Path:
    path = tmp_path / "big.wav"
    with open(path, "wb") as file:
        file.truncate(n_bytes)
    return path


def ok(connection: socket.socket, body: bytes = b"{}", status: str = "200 OK") -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection.sendall(head + body)


def post(url: str, path: Path, key: str | None = None) -> int:
    with open(path, "rb") as file:
        upload = Upload([("model", "m")], file, path.name)
        return HttpServer(url, key).post("/x", upload, lambda a, b: None).status


def test_a_large_file_is_sent_in_constant_memory(tmp_path: Path) -> None:
    n_received = 0

    def take(connection: socket.socket) -> None:
        nonlocal n_received
        while n_received < 64 << 20:
            n_received += len(connection.recv(1 << 20))
        ok(connection)

    path = big_file(tmp_path, 64 << 20)
    with tcp(take) as url:
        tracemalloc.start()
        assert post(url, path) == 200
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 8 << 20


def test_an_answer_before_the_end_of_the_body_is_heard(tmp_path: Path) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(1000)
        ok(connection, status="503 Service Unavailable")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass

    with tcp(refuse) as url:
        assert post(url, big_file(tmp_path, 256 << 20)) == 503


@pytest.mark.parametrize(
    "said",
    [b"", b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"],
)
def test_what_is_no_answer_may_be_tried_again(said: bytes) -> None:
    def say(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(said)

    with tcp(say) as url, pytest.raises(ServerError) as caught:
        HttpServer(url, None).get("/models")
    assert caught.value.may_return


def test_an_answer_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxmlx.client.http_server._MAX_ANSWER_BYTES", 1000)

    def flood(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(5000))

    with tcp(flood) as url, pytest.raises(ServerError, match="without an end"):
        HttpServer(url, None).get("/models")


def test_all_requests_end_when_they_are_aborted() -> None:
    accepted = threading.Event()

    def wait(connection: socket.socket) -> None:
        accepted.set()
        while connection.recv(1000):
            pass

    with tcp(wait) as url:
        server = HttpServer(url, None)
        threading.Thread(target=lambda: (accepted.wait(), server.abort())).start()
        with pytest.raises(ServerError):
            server.get("/models")
        with pytest.raises(ServerError, match="stopped"):
            server.get("/models")


def test_a_key_of_any_characters_is_sent_as_utf_8() -> None:
    heard = bytearray()

    def take(connection: socket.socket) -> None:
        heard.extend(connection.recv(4000))
        ok(connection)

    with tcp(take) as url:
        HttpServer(url, "q+/Zw8== 鍵").get("/models")
    assert "Authorization: Bearer q+/Zw8== 鍵\r\n".encode() in heard


@pytest.mark.parametrize(
    ("address", "base"),
    [
        ("there:8000", "http://there:8000/v1"),
        ("http://there:8000/", "http://there:8000/v1"),
        ("ws://there:8000/v1/realtime", "http://there:8000/v1"),
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("http://there/x/v1/audio/transcriptions", "http://there/x/v1"),
    ],
)
def test_an_address_needs_no_more_than_a_name(address: str, base: str) -> None:
    assert base_url(address) == base


@pytest.mark.parametrize(
    "address",
    ["ftp://there", "http://", "http://there:port", "there:99999", "http://u:p@x"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ServerError, match="expected http://HOST:PORT"):
        base_url(address)
