"""The page of captions: who may see it, what is sent, and viewers that do not read."""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from voxmlx.errors import ServerError
from voxmlx.overlay import caption_server
from voxmlx.overlay.caption_server import CaptionServer
from voxmlx.web.access import Access
from voxmlx.web.listening import listen

PATIENCE_S = 60


@contextmanager
def showing() -> Iterator[CaptionServer]:
    host = "127.0.0.1"
    server = CaptionServer(listen(host, 0), Access.for_host(host, (), ()))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def server() -> Iterator[CaptionServer]:
    with showing() as server:
        yield server


def messages(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_who_comes_has_the_current_lines_at_once_and_then_each_change(
    server: CaptionServer,
) -> None:
    server.set("one\ntwo", " three")
    for _ in range(2):  # and who comes again
        with httpx.stream("GET", f"{server.url}/events", timeout=PATIENCE_S) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            found = messages(answer)
            first = next(found)
            while first["text"] == "":  # the thread of the server has not had a turn
                first = next(found)
            assert first == {"text": "one\ntwo", "draft": " three"}
    with httpx.stream("GET", f"{server.url}/events", timeout=PATIENCE_S) as answer:
        found = messages(answer)
        next(found)
        server.set("one\ntwo three", "")
        assert next(found) == {"text": "one\ntwo three", "draft": ""}
        server.close()
        # It ends with nothing on the page.
        assert list(found) == [{"text": "", "draft": ""}]


def test_a_viewer_that_does_not_read_holds_up_nobody_and_skips(
    server: CaptionServer,
) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), PATIENCE_S) as viewer:
        viewer.sendall(f"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        started = time.monotonic()
        n_sets, words = 4000, "word " * 700
        for i in range(n_sets):
            server.set(f"{words}{i}", "")
            if i % 100 == 0:
                time.sleep(0.002)  # the server's thread has a turn
        assert time.monotonic() - started < PATIENCE_S
        server.set("the last", "")
        received = b""
        while b"the last" not in received:
            received += viewer.recv(1 << 20)
        n_messages = received.count(b"data: ")
    assert n_messages < n_sets / 2


@pytest.mark.parametrize("path", ["/", "/events", "/help", "/page/overlay.js"])
def test_strange_names_and_strange_pages_are_refused(
    path: str, server: CaptionServer
) -> None:
    for headers, status in (
        ({"Host": "rebound.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
    ):
        answer = httpx.get(f"{server.url}{path}", headers=headers, timeout=PATIENCE_S)
        assert answer.status_code == status
        assert "Content-Security-Policy" in answer.headers


def test_only_files_of_the_page_are_there_and_nothing_may_be_sent(
    server: CaptionServer,
) -> None:
    assert (
        httpx.get(f"{server.url}/page/look.js", timeout=PATIENCE_S).status_code == 200
    )
    for path in ("/page/../caption_app.py", "/page/%2e%2e/caption_app.py", "/else"):
        assert httpx.get(f"{server.url}{path}", timeout=PATIENCE_S).status_code == 404
    assert httpx.post(f"{server.url}/events", timeout=PATIENCE_S).status_code == 405


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(
    server: CaptionServer,
) -> None:
    for path in ("/", "/help"):
        answer = httpx.get(f"{server.url}{path}", timeout=PATIENCE_S)
        rules = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in rules
        assert "unsafe" not in rules
        assert "http" not in rules
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "style=" not in answer.text
        assert "<script>" not in answer.text


def test_closing_does_not_wait_for_a_viewer_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Else a thread that is held up would be left behind after five seconds.
    monkeypatch.setattr(caption_server, "_END_S", PATIENCE_S)
    others = {*threading.enumerate()}
    with showing() as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), PATIENCE_S) as viewer:
            viewer.sendall(f"GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            for i in range(2000):
                server.set(f"{'word ' * 700}{i}", "")
            server.close()
            assert {*threading.enumerate()} <= others


def test_the_page_is_served_though_standard_output_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with showing() as server:
        assert httpx.get(server.url, timeout=PATIENCE_S).status_code == 200


def test_a_page_that_cannot_be_served_is_an_error_and_no_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(caption_server, "caption_app", fail)
    with pytest.raises(ServerError, match="page cannot be served: no room"), showing():
        pass


@pytest.mark.parametrize("host", ["\udcff", "é..b", "é" * 70, "a..b", "a" * 300])
def test_a_host_that_no_network_has_is_refused_in_one_line(host: str) -> None:
    with pytest.raises(ServerError, match="is no address of this machine") as caught:
        listen(host, 0)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()
