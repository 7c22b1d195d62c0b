"""Requests to a server of OpenAI's dialect: bodies streamed, answers whole."""

import select
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from voxmlx.cli.json_fields import fields_in, fields_of
from voxmlx.errors import ServerError

__all__ = ["HttpServer", "Response", "Upload", "base_url"]

# For a connection, and for a server that takes nothing of a body.
_MOVE_S = 60.0
# For an answer: a server may have hours of sound before ours.
_ANSWER_S = 6 * 3600.0
# Probes on a connection where nothing moves find a dead machine within two minutes.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 15}

_BLOCK_BYTES = 1 << 16
# The words of a week; a server that sends more is none.
_MAX_ANSWER_BYTES = 256 << 20

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def base_url(address: str) -> str:
    """Return where a server's dialect begins: `http://host:port/v1`.

    Takes an address with or without scheme and path, and a websocket's too. Raises
    ServerError.
    """
    url = address if "://" in address else f"http://{address}"
    scheme, _, rest = url.partition("://")
    scheme = {"ws": "http", "wss": "https"}.get(scheme, scheme)
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        is_address = parts.hostname and parts.port != 0 and "@" not in parts.netloc
        if scheme in ("http", "https") and is_address:
            path = parts.path.rstrip("/")
            for ending in ("/audio/transcriptions", "/realtime"):
                path = path.removesuffix(ending)
            return f"{scheme}://{parts.netloc}{path or '/v1'}"
    except ValueError:  # a port that is no number
        pass
    raise ServerError(
        f"--server {address[:80]} is no address of a server, expected http://HOST:PORT"
    )


@dataclass(frozen=True, slots=True)
class Response:
    """A response: its status, what it says about trying again, and its content."""

    status: int
    retry_after_s: float | None
    body: bytes

    @property
    def content(self) -> Mapping[str, Any]:
        """Return the JSON object in the body; one without fields if there is none."""
        return fields_in(self.body)

    @property
    def message(self) -> str:
        """Return what the server says about an error, on one line."""
        told = self.content.get("error", self.content)
        if fields := fields_of(told):
            told = fields.get("message") or fields.get("detail")
        text = (
            told
            if isinstance(told, str)
            else self.body[:200].decode("utf-8", "replace")
        )
        return " ".join(text.split())[:300] or "nothing about it"


@dataclass(frozen=True, slots=True)
class Upload:
    """A form with one file; the file is sent from its beginning."""

    fields: Sequence[tuple[str, str]]
    file: BinaryIO
    name: str


class HttpServer:
    """One server. Its requests may come from several threads."""

    def __init__(self, base: str, key: str | None) -> None:
        self.base = base
        self._key = key
        self._lock = threading.Lock()
        self._open: set[HTTPConnection] = set()
        self._is_aborted = False

    def get(self, path: str) -> Response:
        """Ask for a path below the base. Raises ServerError."""
        return self._ask("GET", path, {}, lambda connection: None)

    def post(
        self, path: str, upload: Upload, sent: Callable[[int, int], None]
    ) -> Response:
        """Send a form; `sent` is told how many bytes of how many are gone.

        Memory does not depend on the file. Raises ServerError.
        """
        boundary = uuid.uuid4().hex
        head = _head(upload, boundary)
        tail = f"\r\n--{boundary}--\r\n".encode()
        n_file = upload.file.seek(0, 2)
        upload.file.seek(0)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + n_file + len(tail)),
        }

        def send(connection: HTTPConnection) -> None:
            connection.send(head)
            n_sent = 0
            while n_sent < n_file and not _has_answer(connection):
                block = upload.file.read(min(_BLOCK_BYTES, n_file - n_sent))
                if not block:  # it has become shorter
                    raise ServerError(f"{upload.name} was cut while it was sent")
                connection.send(block)
                n_sent += len(block)
                sent(n_sent, n_file)
            if n_sent == n_file:
                connection.send(tail)

        return self._ask("POST", path, headers, send)

    def abort(self) -> None:
        """End all requests, and let none begin. From any thread."""
        with self._lock:
            self._is_aborted = True
            connections = list(self._open)
        for connection in connections:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        send: Callable[[HTTPConnection], None],
    ) -> Response:
        if self._is_aborted:
            raise ServerError("stopped")
        connection, target = self._connection(path)
        try:
            with self._lock:
                self._open.add(connection)
            self._reach(connection)
            with self._lock:  # from here on its socket is there to be shut down
                if self._is_aborted:
                    raise ServerError("stopped")
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in {**headers, **self._own_headers()}.items():
                connection.putheader(name, value)
            try:
                connection.endheaders()
                send(connection)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it may have answered before all was there
            connection.sock.settimeout(_ANSWER_S)
            response = connection.getresponse()
            body = response.read(_MAX_ANSWER_BYTES + 1)
            if len(body) > _MAX_ANSWER_BYTES:
                raise self._lost("sends an answer without an end", may_return=False)
            if response.length:
                raise self._lost("has ended the connection within its answer")
            wait = response.headers.get("Retry-After", "")
            wait_s = float(wait) if wait.isdecimal() else None
            return Response(response.status, wait_s, body)
        except (OSError, HTTPException) as error:
            raise self._lost(f"has ended the connection: {_reason(error)}") from None
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def _reach(self, connection: HTTPConnection) -> None:
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise self._lost(
                f"has a certificate that is not trusted: {error.verify_message}",
                may_return=False,
            ) from None
        except ssl.SSLError as error:
            raise self._lost(
                f"makes no encrypted connection ({error.reason}); is it http://?",
                may_return=False,
            ) from None
        except (OSError, HTTPException) as error:
            raise ServerError(
                f"cannot reach the server {self.base}: {_reason(error)}; is it running?",
                may_return=True,
            ) from None
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                with suppress(OSError):
                    connection.sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def _lost(self, what: str, *, may_return: bool = True) -> ServerError:
        return ServerError(f"the server {self.base} {what}", may_return=may_return)

    def _own_headers(self) -> dict[str, str]:
        accept = {"Accept": "application/json", "User-Agent": "voxmlx"}
        if self._key is None:
            return accept
        # Header values are Latin-1 for http.client; a key is UTF-8, as elsewhere.
        return accept | {
            "Authorization": f"Bearer {self._key}".encode().decode("latin-1")
        }

    def _connection(self, path: str) -> tuple[HTTPConnection, str]:
        """Return a connection, not open yet, and what to ask for on it."""
        parts = urlsplit(self.base)
        host, is_tls = parts.hostname or "", parts.scheme == "https"
        target = parts.path + path
        kind = HTTPSConnection if is_tls else HTTPConnection
        proxy = None
        if host not in _LOOPBACK and not proxy_bypass(host):
            proxy = getproxies().get(parts.scheme)
        if proxy is None:
            return kind(host, parts.port, timeout=_MOVE_S), target
        at = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        connection = kind(at.hostname or "", at.port or 80, timeout=_MOVE_S)
        if not is_tls:
            return connection, self.base + path
        connection.set_tunnel(host, parts.port)
        return connection, target


def _head(upload: Upload, boundary: str) -> bytes:
    """Return all of a form before the file's content."""
    text = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in upload.fields
    )
    # What may stand in quotes there; a server needs little more than the suffix.
    name = "".join(
        c if c.isprintable() and c not in '"\\' else "_" for c in upload.name
    )
    text += (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
        f'filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    )
    return text.encode("utf-8", "replace")


def _has_answer(connection: HTTPConnection) -> bool:
    """Return whether the server has answered before the whole body was there."""
    if isinstance(connection, HTTPSConnection):
        return False  # what can be read may be about the encryption
    return bool(select.select([connection.sock], [], [], 0)[0])


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
