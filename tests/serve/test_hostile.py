"""Thousands of wrong messages, frames and bodies: errors for them, nothing for others."""

import contextlib
import json
import logging
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import websockets.exceptions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from tests.serve.loopback import (
    PATIENCE_S,
    Loopback,
    pcm16,
    said,
    serving,
    sound,
    until,
)
from tests.serve.test_protocol import MESSAGES
from tests.sounds import speech_like
from voxmlx import Checkpoint, Session
from voxmlx.events import TextDelta
from voxmlx.web.limits import Limits

PATHS = (
    "/v1/realtime",
    "/v1/realtime?intent=transcription",
    "/v1/audio/transcriptions/realtime",
)
FINAL = json.dumps({"type": "input_audio_buffer.commit", "final": True})


@contextmanager
def unharmed(
    checkpoint: Checkpoint,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    n: int,
) -> Iterator[tuple[Loopback, Callable[[], None]]]:
    """A server, and somebody who says an n-th when called; both must be well after."""
    whole = np.round(speech_like(24_000, seed=2) * 32768).clip(-32768, 32767) / 32768
    session = Session(checkpoint)
    events = session.push(whole.astype(np.float32)) + session.finish()
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    pieces = list(sound(whole, piece=-(-len(whole) // n)))
    limits = Limits(max_body_bytes=1 << 20)
    with (
        caplog.at_level(logging.WARNING),
        serving(checkpoint, max_sessions=64, limits=limits) as server,
    ):
        with connect(f"{server.ws}/v1/realtime") as bystander:

            def talk() -> None:
                if pieces:
                    bystander.send(pieces.pop(0))

            yield server, talk
            while pieces:
                talk()
            bystander.send(FINAL)
            assert said(bystander, "transcription.done")[-1]["text"] == text
        scheduler = server.scheduler
        until(lambda: (scheduler.n_slots, scheduler.n_streams) == (0, 0))
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []
    # uvicorn logs past caplog, at once to stderr.
    told = capfd.readouterr().err
    assert "Traceback" not in told
    assert "ERROR" not in told


def send_all(server: Loopback, path: str, messages: list[str]) -> None:
    """A client that says all that, unless it is shown the door for it."""
    with (
        contextlib.suppress(websockets.exceptions.ConnectionClosed),
        connect(f"{server.ws}{path}", close_timeout=5, max_queue=None) as websocket,
    ):
        for message in messages:
            websocket.send(message)
        websocket.send("and no json")
        while json.loads(websocket.recv(timeout=PATIENCE_S))["type"] != "error":
            pass


@pytest.mark.parametrize(
    "n_talks", [25, pytest.param(1250, marks=pytest.mark.slow)], ids=["some", "10000"]
)
def test_no_message_harms_anybody(
    tiny_checkpoint: Checkpoint,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    n_talks: int,
) -> None:
    talks: list[tuple[str, list[str]]] = []

    # Before there is a server: its threads disturb how Hypothesis draws.
    @settings(
        max_examples=n_talks,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        database=None,
    )
    @given(st.sampled_from(PATHS), st.lists(MESSAGES, min_size=8, max_size=12))
    def invent(path: str, messages: list[str]) -> None:
        talks.append((path, messages))

    invent()
    assert sum(len(messages) for _, messages in talks) >= 8 * n_talks
    with unharmed(tiny_checkpoint, caplog, capfd, n_talks) as (server, talk):
        for path, messages in talks:
            send_all(server, path, messages)
            talk()


# ------------------------------------------------------ frames and bodies

UPGRADE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)

# Half a second that is in order.
_PCM = pcm16(speech_like(8_000, seed=3))
WAV = (
    struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + len(_PCM), b"WAVE", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16),
        *(b"data", len(_PCM)),
    )
    + _PCM
)

KINDS = ("json", "text", "srt", "vtt", "verbose_json")


def broken_frames(rng: random.Random) -> list[bytes]:
    """A handshake, and then what no websocket says."""
    text = b'{"type": "input_audio_buffer.commit"}'
    masked = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text
    wrong = rng.choice(
        [
            rng.randbytes(rng.randrange(1, 200)),
            bytes([0x81, len(text)]) + text,  # not masked
            bytes([0xF1, 0x80, 0, 0, 0, 0]),  # reserved bits
            bytes([0x83, 0x80, 0, 0, 0, 0]),  # no such opcode
            bytes([0x80, 0x81, 0, 0, 0, 0, 65]),  # goes on with nothing
            bytes([0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28]),  # no UTF-8
            bytes([0x81, 0xFF]) + (2**62).to_bytes(8, "big"),  # far too long
            bytes([0x89, 0xFE, 1, 0]) + bytes(260),  # a ping of 256 bytes
            bytes([0x88, 0x81, 0, 0, 0, 0, 1]),  # half a closing code
            masked[: rng.randrange(len(masked))],
        ]
    )
    return [UPGRADE, masked * rng.randrange(3) + wrong]


def broken_request(rng: random.Random) -> list[bytes]:
    """A request for a transcript with something wrong in it."""
    fields = {"response_format": rng.choice(KINDS), "model": "demo"}
    if rng.random() < 0.3:
        fields[rng.choice(["delay_ms", "stream", "keywords[]", "ß", "\0"])] = (
            rng.choice(
                [
                    "",
                    "-1",
                    "1e9",
                    "true",
                    "\ud800".encode("utf-8", "replace").decode(),
                    "x" * 999,
                ]
            )
        )
    sound = rng.choice(
        [
            b"",
            rng.randbytes(rng.randrange(500)),
            b"RIFF" + rng.randbytes(60),
            b"fLaC" + rng.randbytes(60),
            b"OggS" + rng.randbytes(60),
            b"ID3\x04" + rng.randbytes(60),
            b"\xff\xfb" + rng.randbytes(400),
            WAV,
            WAV[: rng.randrange(len(WAV))],
        ]
    )
    parts = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    )
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    body = parts + head + sound + b"\r\n--b--\r\n"
    if rng.random() < 0.5:
        at = rng.randrange(len(body))
        body = (
            body[:at] + rng.randbytes(rng.randrange(8)) + body[at + rng.randrange(9) :]
        )
    kind = rng.choice(
        [
            "multipart/form-data; boundary=b",
            "multipart/form-data; boundary=b; charset=x",
            "multipart/form-data",
            "multipart/form-data; boundary=" + "b" * 300,
            "application/x-www-form-urlencoded",
            "application/json",
            "",
        ]
    )
    length = len(body) + rng.choice([0, 0, 0, 7, -3])
    path = rng.choice(["/v1/audio/transcriptions"] * 4 + ["/v1/models", "/\xff", "*"])
    method = rng.choice(["POST"] * 4 + ["PUT", "OPTIONS", "P\0ST"])
    first = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    ending = f"Content-Length: {max(0, length)}\r\nConnection: close\r\n\r\n"
    # To one that hangs up before its answer, none is given.
    is_short = length > len(body)
    return [(first + ending).encode("latin-1") + body, *([b""] if is_short else [])]


def answer(server: Loopback, first: bytes, *others: bytes) -> bytes:
    """All that comes back; who says something `other` than the first hangs up then."""
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, PATIENCE_S) as plain:
        got = b""
        with contextlib.suppress(ConnectionError):
            plain.sendall(first)
            for other in others:
                got += plain.recv(65_536) if other else b""
                plain.sendall(other)
                plain.shutdown(socket.SHUT_WR)
            while piece := plain.recv(65_536):
                got += piece
        return got


# A form that breaks off leaves its file to the garbage collector, which closes it.
@pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.Spool:ResourceWarning")
@pytest.mark.parametrize(
    ("broken", "expected"),
    [(broken_frames, {101}), (broken_request, {200, 400, 404, 405})],
)
def test_a_thousand_malformed_connections_harm_nobody(
    tiny_checkpoint: Checkpoint,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    broken: Callable[[random.Random], list[bytes]],
    expected: set[int],
) -> None:
    rng = random.Random(5)
    statuses: set[int] = set()
    with unharmed(tiny_checkpoint, caplog, capfd, 1000) as (server, talk):
        for _ in range(1000):
            parts = broken(rng)
            told = answer(server, *parts)
            if told.startswith(b"HTTP/1.1 "):
                status = int(told[9:12])
                assert status < 500, (parts, told)
                statuses.add(status)
            talk()
    assert statuses == expected


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    ],
    ids=["no HTTP", "no header", "no ASCII", "no length"],
)
def test_what_is_no_http_gets_an_error_that_programs_read(
    tiny_checkpoint: Checkpoint,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    request_: bytes,
) -> None:
    with unharmed(tiny_checkpoint, caplog, capfd, 1) as (server, _):
        head, _, body = answer(server, request_).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head.lower()
    error = json.loads(body)["error"]
    assert (error["code"], error["param"]) == ("invalid_http", None)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (bytes([0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28]), 1007),  # no UTF-8
        (bytes([0x81, 3, 65, 65, 65]), 1002),  # not masked
        (bytes([0x81, 0xFF]) + (2**62).to_bytes(8, "big"), 1009),
    ],
)
def test_a_broken_frame_is_told_why_it_is_the_last(
    tiny_checkpoint: Checkpoint,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    broken: bytes,
    code: int,
) -> None:
    with unharmed(tiny_checkpoint, caplog, capfd, 1) as (server, _):
        goodbye = bytes([0x88])
        told = answer(server, UPGRADE, broken)
        assert code.to_bytes(2, "big") in told.rpartition(goodbye)[2][:4]
