"""Clients that upload a long sound file each, to see what they take from others."""

import contextlib
import io
import json
import threading
import time
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import numpy as np

from voxmlx.config import SAMPLE_RATE

__all__ = ["uploading"]

_PATIENCE_S = 120.0
_BOUNDARY = "voxmlx"


@contextmanager
def uploading(
    address: str, n: int, sound: np.ndarray, seconds: float
) -> Iterator[None]:
    """Have n files of so many seconds decoded meanwhile; then hang up.

    `sound`, float32 [n] at 16 kHz, is repeated. Begins when the server has all bodies.
    """
    body = _body(sound, seconds)
    connections = [HTTPConnection(address, timeout=_PATIENCE_S) for _ in range(n)]
    threads = [
        threading.Thread(target=_send, args=(connection, body))
        for connection in connections
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _wait_for_streams(address, n)
        yield
    finally:
        for connection in connections:
            connection.close()
        _wait_for_streams(address, 0)  # the next measurement is of a server at rest


def _send(connection: HTTPConnection, body: bytes) -> None:
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    with contextlib.suppress(OSError):  # refused: the wait for streams tells of it
        connection.request("POST", "/v1/audio/transcriptions", body, headers)


def _wait_for_streams(address: str, n: int) -> None:
    end = time.monotonic() + _PATIENCE_S
    while True:
        with urllib.request.urlopen(f"http://{address}/health") as response:
            n_sessions = json.load(response)["sessions"]
        if n_sessions == n:
            return
        if time.monotonic() > end:
            raise SystemExit(f"{n_sessions} uploads are decoded, expected {n}")
        time.sleep(0.1)


def _body(sound: np.ndarray, seconds: float) -> bytes:
    """A form with a WAV of 16-bit sound."""
    pcm = (sound * 32768).clip(-32768, 32767).astype("<i2")
    wanted = round(seconds * SAMPLE_RATE)
    whole = np.tile(pcm, -(-wanted // len(pcm)))[:wanted]
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(whole.tobytes())
    head = (
        f"--{_BOUNDARY}\r\nContent-Disposition: form-data; "
        'name="file"; filename="long.wav"\r\n\r\n'
    )
    return head.encode() + file.getvalue() + f"\r\n--{_BOUNDARY}--\r\n".encode()
