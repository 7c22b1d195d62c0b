"""Connections as uvicorn runs them, bounded in time, number and bytes.

An HTTP connection is in one of these states; each has a clock of its own:

             a head is whole           the response is sent
  WAITING ──────────────────▶ BUSY ─────────────────────────▶ WAITING
     ▲                          │
     └───────── RESTING ◀───────┘ the response is sent before the body has come
                (the rest of the body is read and thrown away)

  WAITING  `head_s` from the first byte of a head to its last, and before the first
           request; uvicorn closes a connection that is idle after a response sooner
  BUSY     the request's own clocks: a body's, a session's
  RESTING  `_REST_S`: who is refused while it sends must be able to read why

In any state, a client that does not read what it was sent has `write_s`. If
`max_connections` are open, the one that has waited longest makes room for another.

Example: 600 clients send half a head each, 512 may be open. Each of the last 88 closes
the connection of one of the first. All are closed 10 s after their first byte, and a
whole request in between is answered at once.
"""

import asyncio
import json
import time
from typing import Any, Protocol, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import (
    WebSocketsSansIOProtocol,
)
from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame

from voxmlx.web.limits import Limits

__all__ = ["HttpProtocol", "SocketState", "Waiting", "WebSocketProtocol"]

_REST_S = 2.0

# How long a websocket may take to read its goodbye.
_LINGER_S = 5.0

# Read at once. Messages of a few bytes each take a thousand times their size.
_MAX_READ_BYTES = 1 << 16

# Frames that are no message, at once and per second: pings, and parts of messages.
_MAX_FRAMES, _FRAMES_PER_S = 4096, 512


def _error_body(message: str, kind: str, *, code: str) -> bytes:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}).encode()


_FULL = _error_body(
    "the server has too many connections; try again later",
    "server_error",
    code="too_many_connections",
)
_FULL_RESPONSE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Retry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    % (len(_FULL), _FULL)
)


class Waiting(Protocol):
    """A connection that may make room for another while nothing happens on it."""

    @property
    def is_idle(self) -> bool: ...
    def give_up(self) -> None: ...


class SocketState(ServerState):
    """State that all connections of a server share, whatever they speak."""

    def __init__(self, limits: Limits, max_connections: int) -> None:
        super().__init__()
        self.limits = limits
        self.max_connections = max_connections
        # Those that may wait for the head of a request, the longest first.
        self.waiting: dict[Waiting, None] = {}

    def has_room(self) -> bool:
        """Return whether the newest connection may stay; one that waits makes room."""
        if len(self.connections) <= self.max_connections:
            return True
        longest = next((one for one in self.waiting if one.is_idle), None)
        if longest is None:
            return False
        longest.give_up()
        return True


class _Clock:
    """One timer at a time."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        return self._timer is not None

    def start(self, seconds: float, transport: asyncio.Transport) -> None:
        """End the connection after so many seconds, whatever it is about."""
        self.stop()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, transport.abort)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class HttpProtocol(H11Protocol):
    """One HTTP connection; see the states above."""

    def __init__(self, config: Config, state: SocketState) -> None:
        super().__init__(config, state, {})
        self._state = state
        self._is_resting = False
        self._clock = _Clock()
        self._write_clock = _Clock()

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] -- as uvicorn's
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # asyncio's own, without TLS
            cast(Any, transport).max_size = _MAX_READ_BYTES
        if not self._state.has_room():
            transport.write(_FULL_RESPONSE)
            transport.close()
            return
        self._wait()

    @property
    def is_idle(self) -> bool:
        """Return True: who is busy is not among those that wait."""
        return True

    def give_up(self) -> None:
        """Make room for another connection."""
        self._clock.stop()
        self._stop_waiting()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clock.stop()
        self._write_clock.stop()
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing() or self._is_upgraded:
            return
        cycle: Any = getattr(self, "cycle", None)  # None before the first request
        is_busy = cycle is not None and not cycle.response_complete
        if is_busy:
            self._clock.stop()
            self._stop_waiting()
        elif self._is_resting:
            if self.conn.their_state is not h11.SEND_BODY:  # it has all come
                self._wait()
        elif not self._clock.is_running:
            self._wait()

    def handle_events(self) -> None:
        try:
            super().handle_events()
        except UnicodeDecodeError:  # of an address that is no ASCII
            self.send_400_response("its address has bytes beyond ASCII")

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP with the error object that all refusals have."""
        message = f"the request is no HTTP/1.1 ({msg.rstrip('.')}); the connection ends"
        body = _error_body(message, "invalid_request_error", code="invalid_http")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._clock.stop()
        self._stop_waiting()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.SEND_BODY:
            self._is_resting = True
            self._clock.start(_REST_S, self.transport)
        elif self.conn.their_state is h11.IDLE:
            self._state.waiting[self] = None  # uvicorn's clock runs

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_clock.start(self._state.limits.write_s, self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_clock.stop()

    @property
    def _is_upgraded(self) -> bool:
        return self.transport.get_protocol() is not self

    def _wait(self) -> None:
        """For the head of a request."""
        self._is_resting = False
        self._state.waiting[self] = None
        self._clock.start(self._state.limits.head_s, self.transport)

    def _stop_waiting(self) -> None:
        self._state.waiting.pop(self, None)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Reads only as far as the application has, and does not outlive it for long.

    Closing waits for a client to read what it was sent, which it may never do.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(server_state, SocketState)
        self._state = server_state
        self._write_clock = _Clock()
        self._n_frames = float(_MAX_FRAMES)
        self._counted_at = time.monotonic()
        self._is_refused = False

    async def run_asgi(self) -> None:
        try:
            await super().run_asgi()
        finally:
            self.loop.call_later(_LINGER_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._write_clock.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:  # else it is thrown away
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        """Say why the connection ends to a client that may still be sending.

        A socket that is closed before all is read loses what was written last.
        """
        self._is_refused = True
        closing = self.conn.close_sent
        if closing is None or not self.handshake_complete:
            self.transport.abort()
            return
        disconnect: Any = {"type": "websocket.disconnect", "code": closing.code}
        self.queue.put_nowait(disconnect)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.resume_reading()
        self.close_timer = self.loop.call_later(_REST_S, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_clock.start(self._state.limits.write_s, self.transport)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_clock.stop()

    def handle_text(self, event: Frame) -> None:
        if event.fin or self._may_go_on():
            super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        if event.fin or self._may_go_on():
            super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        if self._may_go_on():
            super().handle_cont(event)

    def handle_ping(self) -> None:
        if not self._may_go_on():
            return
        if self.writable.is_set():
            super().handle_ping()
        else:  # who does not read needs no more to read
            self.conn.data_to_send()

    def handle_pong(self, event: Frame) -> None:
        if self._may_go_on():
            super().handle_pong(event)

    def _may_go_on(self) -> bool:
        """Count a frame that is no message; end the connection if they are too many."""
        if self._is_refused:
            return False
        now = time.monotonic()
        gained = (now - self._counted_at) * _FRAMES_PER_S
        self._n_frames = min(_MAX_FRAMES, self._n_frames + gained) - 1
        self._counted_at = now
        if self._n_frames >= 0:
            return True
        self.frames = []
        if self.conn.close_sent is None:
            code = CloseCode.POLICY_VIOLATION
            self.conn.fail(code, "too many frames that are no message")
        self.handle_parser_exception()
        self.transport.close()  # and read no more of them
        return False
