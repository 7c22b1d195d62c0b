"""Clients that mean harm, or are just unlucky, in a process of their own.

python -m tests.serve.attackers PORT WYOMING_PORT SECONDS SOUND...

It ends in counts, as JSON.
"""

import contextlib
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["upload_request"]

_UPGRADE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)

Attack = Callable[[random.Random], None]


def upload_request(sound: bytes, name: str = "a") -> bytes:
    """A whole request for a transcript."""
    disposition = f'form-data; name="file"; filename="{name}"'
    head = f"--b\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    body = head + sound + b"\r\n--b--\r\n"
    return (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n"
        % len(body)
    ) + body


def _frame(first: int, payload: bytes = b"") -> bytes:
    n = len(payload)
    length = bytes([0x80 | n]) if n < 126 else b"\xff" + n.to_bytes(8, "big")
    return bytes([first]) + length + bytes(4) + payload


_FORMAT = {"rate": 16_000, "width": 2, "channels": 1}


def _event(
    kind: str, fields: dict[str, Any] | None = None, payload: bytes = b""
) -> bytes:
    """An event of Wyoming's."""
    header = {"type": kind, "data": fields or {}, "payload_length": len(payload)}
    return json.dumps(header).encode() + b"\n" + payload


class Attackers:
    """Each attack is one connection; all of them are counted."""

    def __init__(self, port: int, wyoming_port: int, sounds: dict[str, bytes]) -> None:
        self.counts: Counter[str] = Counter()
        self._address = ("127.0.0.1", port)
        self._wyoming = ("127.0.0.1", wyoming_port)
        self._requests = {
            name: upload_request(sound, name) for name, sound in sounds.items()
        }

    def run(self, seconds: float) -> None:
        attacks: dict[str, Attack] = {
            "uploads": self.hang_up,
            "more uploads": self.hang_up,
            "sockets": self.kill_socket,
            "silence": self.be_silent,
            "halves": self.send_half,
            "floods": self.flood,
            "giants": self.send_giant,
            "wyoming utterances": self.leave_utterance,
            "wyoming halves": self.send_half_events,
            "wyoming floods": self.flood_wyoming,
        }
        end = time.monotonic() + seconds

        def repeat(name: str, attack: Attack) -> None:
            rng = random.Random(name)
            while time.monotonic() < end:
                with contextlib.suppress(OSError):
                    attack(rng)
                    self.counts[name] += 1

        threads = [threading.Thread(target=repeat, args=one) for one in attacks.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _dial(self) -> socket.socket:
        return socket.create_connection(self._address, 5)

    def _dial_wyoming(self) -> socket.socket:
        return socket.create_connection(self._wyoming, 5)

    def leave_utterance(self, rng: random.Random) -> None:
        """At any moment: before its end, while it is decoded, while it is told."""
        with self._dial_wyoming() as plain:
            sound = rng.randbytes(2 * rng.randrange(1, 16_000))
            plain.sendall(_event("transcribe", {"transcript_names": ["Ann"] * 50}))
            plain.sendall(_event("audio-start", _FORMAT))
            for _ in range(rng.randrange(10)):
                plain.sendall(_event("audio-chunk", _FORMAT, sound))
            if rng.random() < 0.5:
                plain.sendall(_event("audio-stop"))
                time.sleep(rng.random() * 0.2)
            plain.sendall(_event("audio-chunk", _FORMAT, sound)[: rng.randrange(99)])

    def send_half_events(self, rng: random.Random) -> None:
        """Many at a time, which stay as long as they are let."""
        whole = _event("audio-chunk", _FORMAT, bytes(60_000))
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                plain = stack.enter_context(self._dial_wyoming())
                plain.sendall(whole[: rng.randrange(len(whole))])
            time.sleep(1.0)

    def flood_wyoming(self, rng: random.Random) -> None:
        """Questions without an end, by who reads no answer; or what is no event."""
        small = rng.choice(
            [
                _event("describe"),
                _event("ping", {"text": "x" * 200}),
                _event("audio-start", _FORMAT) + _event("audio-stop"),
                b"x" * 100,
                b'{"type": "transcribe", "data_length": 900000}\n' + b" " * 100,
            ]
        )
        with self._dial_wyoming() as plain, contextlib.suppress(OSError):
            plain.settimeout(1.0)
            for _ in range(400):
                plain.sendall(small * 100)
        time.sleep(0.1)

    def hang_up(self, rng: random.Random) -> None:
        """At any moment of an upload: while it is sent, decoded or answered."""
        request = self._requests[rng.choice(sorted(self._requests))]
        with self._dial() as plain:
            if rng.random() < 0.3:
                request = request[: rng.randrange(len(request))]
            plain.sendall(request)
            time.sleep(rng.random() * 0.1)

    def kill_socket(self, rng: random.Random) -> None:
        with self._dial() as plain:
            plain.sendall(_UPGRADE)
            plain.recv(1000)
            append = b'{"type": "input_audio_buffer.append", "audio": "%s"}' % (
                b"AAAA" * rng.randrange(2000)
            )
            for _ in range(rng.randrange(20)):
                plain.sendall(_frame(0x81, append))
            plain.sendall(_frame(0x81, append)[: rng.randrange(20)])
        time.sleep(0.02)

    def be_silent(self, rng: random.Random) -> None:
        with self._dial() as plain:
            plain.sendall(_UPGRADE)
            time.sleep(rng.random() * 2)

    def send_half(self, rng: random.Random) -> None:
        """Many at a time, which stay as long as they are let."""
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                plain = stack.enter_context(self._dial())
                plain.sendall(
                    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "[: rng.randrange(40)]
                )
            time.sleep(1.0)

    def flood(self, rng: random.Random) -> None:
        with self._dial() as plain:
            plain.sendall(_UPGRADE)
            plain.recv(1000)
            plain.sendall(_frame(0x01, b"{"))  # a message that does not end
            small = rng.choice([_frame(0x89, b"x" * 100), _frame(0x00), _frame(0x8A)])
            for _ in range(400):
                plain.sendall(small * 100)
        time.sleep(0.1)

    def send_giant(self, rng: random.Random) -> None:
        text = json.dumps({"type": "session.update", "session": {"language": "x"}})
        giant = text.replace('"x"', f'"{"x" * 15_000_000}"').encode()
        with self._dial() as plain:
            plain.sendall(_UPGRADE)
            plain.recv(1000)
            plain.sendall(_frame(0x81, giant))
            for _ in range(150):
                plain.sendall(_frame(0x81, text.encode()))
        time.sleep(rng.random())


def main(argv: list[str]) -> None:
    port, wyoming_port, seconds, *paths = argv
    sounds = {Path(path).name: Path(path).read_bytes() for path in paths}
    attackers = Attackers(int(port), int(wyoming_port), sounds)
    attackers.run(float(seconds))
    sys.stdout.write(json.dumps(attackers.counts))


if __name__ == "__main__":
    main(sys.argv[1:])
