"""Limits for one client, and for all clients together."""

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one client may take."""

    max_message_bytes: int = 16 << 20
    max_body_bytes: int = 512 << 20
    idle_s: float = 300.0
    # Sound that may wait to be decoded (38 MB) before no more is read from a client,
    # whose pings then wait too: many give up after 20 s without an answer.
    max_waiting_ms: int = 600_000
    # Messages that may wait to be read by a client before it is given up.
    max_unread_messages: int = 4096
    # How long sessions may take to end when the server is told to.
    grace_s: float = 10.0
