"""A websocket to a server: opened, greeted, and why it ended."""

import json
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

from voxmlx.cli.json_fields import fields_in, fields_of
from voxmlx.errors import ServerError

__all__ = ["ServerConnection", "server_url"]

_PATH = "/v1/realtime"

_OPEN_S = 10.0
_PING_S = 20.0
_MAX_MESSAGE_BYTES = 64 << 20
# A send that waits this long meets nobody. A server that is behind reads slower than
# it hears, but it reads.
_SEND_S = 180

# What a server says that is full, restarts, or has forgotten us. All else it would say
# again.
_PASSING_CODES = {
    "at_capacity",
    "idle",
    "insufficient_storage",
    "server_error",
    "shutting_down",
    "too_many_connections",
    "unavailable",
}
_PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504}
# Closing codes of a peer that will refuse the same messages again.
_LASTING_CLOSES = {1002, 1003, 1007, 1009, 1010}


def server_url(address: str) -> str:
    """The websocket of a server: `ws://host:port`, with or without scheme and path.

    Raises ServerError.
    """
    url = address if "://" in address else f"ws://{address}"
    scheme, _, rest = url.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        if scheme in ("ws", "wss") and parts.hostname and parts.port != 0:
            path = parts.path if parts.path not in ("", "/") else _PATH
            return parts._replace(path=path).geturl()
    except ValueError:  # a port that is no number
        pass
    raise ServerError(
        f"--server {address} is no address of a server, expected ws://HOST:PORT"
    )


class ServerConnection:
    """One connection. What the server says is in `inbox` after `look`.

    `error` says why there is no more, once there is no more.
    """

    def __init__(self, url: str, key: str | None, *, ping_timeout_s: float) -> None:
        """Connect, and wait for the server's first message. Raises ServerError."""
        self._url = url
        self.inbox: deque[Mapping[str, Any]] = deque()
        self.error: ServerError | None = None
        self.heard_at = time.monotonic()
        with ExitStack() as stack:
            self._socket = _connect(url, key, ping_timeout_s, stack)
            self._greet()
            self._opened = stack.pop_all()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, unless the connection has ended."""
        from websockets.exceptions import ConnectionClosed  # of an extra

        if self.error is not None:
            return
        try:
            self._socket.send(json.dumps(message))
        except ConnectionClosed:
            self.look(_OPEN_S)  # it may have said why

    def look(self, timeout_s: float) -> None:
        """Take in what has come; wait for the first of it."""
        from websockets.exceptions import ConnectionClosed  # of an extra

        while self.error is None:
            try:
                text = self._socket.recv(timeout=timeout_s)
            except TimeoutError:
                return
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd is not None else None
                self.fail(_ending(closed), may_return=code not in _LASTING_CLOSES)
                return
            self._take(text)
            self.heard_at = time.monotonic()
            timeout_s = 0

    def fail(self, what: str, *, may_return: bool = False) -> None:
        """Give the connection up; `what` is what the server did."""
        if self.error is None:
            self.error = ServerError(
                f"the server {self._url} {what}", may_return=may_return
            )

    def refuse(self, message: Mapping[str, Any]) -> None:
        """Give the connection up for an `error` that the server has sent."""
        detail = message.get("error")
        code = message.get("code")
        if fields := fields_of(detail):  # OpenAI's form
            code = fields.get("code", code)
            detail = fields.get("message")
        self.error = ServerError(
            f"the server {self._url} says: {detail}",
            may_return=code in _PASSING_CODES,
        )

    def close(self) -> None:
        """End the connection. Any number of times, from any thread."""
        self._opened.close()

    def _greet(self) -> None:
        """Wait for the first message, which says whether there is a place."""
        self.look(_OPEN_S)
        for message in self.inbox:
            if message.get("type") == "error":
                self.refuse(message)
        if not self.inbox and self.error is None:
            self.fail("does not greet its clients", may_return=True)
        if self.error is not None:
            raise self.error

    def _take(self, text: str | bytes) -> None:
        if message := fields_in(text):
            self.inbox.append(message)
        else:
            self.fail("speaks no JSON")


def _connect(url: str, key: str | None, ping_timeout_s: float, stack: ExitStack) -> Any:
    """Return a websocket that is open until the stack is closed. Raises ServerError."""
    try:
        # Local imports: what only this needs is an extra of the package.
        from websockets.exceptions import InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect
    except ModuleNotFoundError as error:
        raise ServerError(
            f"--server needs {error.name}, which is not installed; install it with "
            "pip install 'voxmlx-realtime[serve]'"
        ) from None
    is_here = (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1")
    try:
        opening = connect(
            url,
            additional_headers={"Authorization": f"Bearer {key}"} if key else None,
            # Sound is hardly compressed.
            compression=None,
            # A proxy knows no other machine by these names.
            proxy=None if is_here else True,
            open_timeout=_OPEN_S,
            close_timeout=1.0,
            ping_interval=_PING_S,
            ping_timeout=ping_timeout_s,
            max_size=_MAX_MESSAGE_BYTES,
            # Text waits here, not at the server, while sound is being sent.
            max_queue=None,
        )
        connection = stack.enter_context(opening)
    except InvalidStatus as refused:
        raise ServerError(
            f"the server {url} lets nobody in{_refusal(refused.response)}",
            may_return=refused.response.status_code in _PASSING_STATUSES,
        ) from None
    except InvalidHandshake:
        raise ServerError(
            f"{url} answers, but is no such server", may_return=True
        ) from None
    except ssl.SSLError as error:
        raise ServerError(
            f"no encrypted connection to {url}: "
            f"{getattr(error, 'verify_message', '') or error.reason}; is it ws://?"
        ) from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise ServerError(
            f"cannot reach the server {url}: {reason}; is it running? "
            "(python -m voxmlx.serve)",
            may_return=True,
        ) from None
    # Whoever sends holds the lock that a ping needs, so a send has a limit of its own.
    with suppress(OSError):
        limit = struct.pack("ll", _SEND_S, 0)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return connection


def _refusal(response: Any) -> str:
    """Why, as far as the answer to a handshake says."""
    told = fields_in(response.body or b"").get("error")
    text = fields_of(told).get("message") or told or response.reason_phrase
    hint = "; give the right --api-key" if response.status_code == 401 else ""
    return f" (HTTP {response.status_code}: {text}){hint}"


def _ending(closed: Any) -> str:
    """How a connection has ended, as far as it is known."""
    if closed.rcvd is None:
        is_mute = closed.sent is not None and "ping" in closed.sent.reason
        if is_mute:
            return "does not answer any more (ping timeout)"
        return "has ended the connection"
    reason = f": {closed.rcvd.reason}" if closed.rcvd.reason else ""
    return f"has ended the connection (code {closed.rcvd.code}{reason})"
