"""Limits for one client, and for all clients together."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on bytes, numbers and time; docs/server.md says what is beyond each."""

    max_message_bytes: int = 1 << 20
    max_body_bytes: int = 512 << 20
    # Of the files of all clients that are on the disk at once.
    max_upload_bytes: int = 2 << 30
    max_connections: int = 512
    # From the first byte of a request's head to its last.
    head_s: float = 10.0
    # Between two pieces of a body.
    body_idle_s: float = 30.0
    # Without a message, until the last words are brought out.
    quiet_s: float = 5.0
    # Between two messages of a websocket.
    idle_s: float = 300.0
    # How long a client may read nothing of what it was sent.
    write_s: float = 30.0
    # Sound that may wait to be decoded (38 MB) before no more is read from a client,
    # whose pings then wait too: many give up after 20 s without an answer.
    max_waiting_ms: int = 600_000
    # Messages that may wait for the decoder's thread before no more is read.
    max_waiting_messages: int = 4096
    # Of events of Wyoming that are not whole yet, of all its clients.
    max_partial_bytes: int = 32 << 20
    # Of messages that wait to be read by a client before it is given up.
    max_unread_bytes: int = 4 << 20
    # Of a file that wait to be read by a client before no more of it is decoded.
    max_unread_events: int = 4096
    # How long sessions may take to end when the server is told to.
    grace_s: float = 10.0
