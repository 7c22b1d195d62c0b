"""A service on a socket, until a signal ends it gracefully."""

import asyncio
import errno
import logging
import resource
import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn

from voxmlx.errors import ServerError
from voxmlx.serve.app import Service
from voxmlx.serve.limits import Limits
from voxmlx.serve.sockets import HttpProtocol, SocketState, WebSocketProtocol
from voxmlx.serve.wyoming_server import WyomingServer

__all__ = ["Server", "announce", "listen", "raise_open_files", "tls_context"]


def listen(host: str, port: int, options: str = "--") -> socket.socket:
    """A socket bound to a port, any free one for 0. Raises ServerError.

    `options` begins the names of the command's two options for it.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "in use" if error.errno == errno.EADDRINUSE else "not for everybody"
            raise ServerError(
                f"port {port} of {host} is {why}; choose another {options}port, or 0 for "
                "any that is free"
            ) from None
        # Python adds to the reason what it tried.
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise ServerError(
            f"{options}host {host} is no address of this machine ({reason}); 127.0.0.1 serves "
            "this machine alone, 0.0.0.0 others too"
        ) from None


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Read a certificate chain and its private key. Raises ServerError."""
    for path in filter(None, (certificate, key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ServerError(
                f"{path} cannot be read ({error.strerror}); name a PEM file"
            ) from None

    def no_password() -> str:
        raise ServerError(
            f"the private key {key or certificate} has a password; write it without "
            "one: openssl pkey -in KEY -out NEW_KEY"
        )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, no_password)
    except ssl.SSLError as error:
        what = f"{certificate} and {key}" if key else f"{certificate}"
        raise ServerError(
            f"{what} hold no certificate with its private key in PEM "
            f"({error.reason or 'no PEM'})"
        ) from None
    return context


_BACKLOG = 512
_HANDSHAKE_S = 10.0

# What macOS allows a process at most; and what is kept for all but connections: the
# model, uploaded files, libraries.
_MAX_OPEN_FILES, _OTHER_FILES = 10_240, 96


def raise_open_files() -> int:
    """Let the process have as many open files as it may; return how many that are.

    A Mac starts programs with 256. Each connection is one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    wanted = min(most, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return _MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's says more than that a client was refused.

    It shows a traceback for bytes that are no text, which it answers by closing, and
    for what is cancelled at the end; an error for every websocket that is answered by
    an HTTP status; a warning for every request that is none.
    """
    if record.exc_info is not None:
        return record.exc_info[0] not in (UnicodeDecodeError, asyncio.CancelledError)
    return not str(record.msg).startswith(
        (
            "ASGI callable returned without completing handshake.",
            "Invalid HTTP request received.",
            "Unsupported upgrade request.",
            "Cancel %s running task(s)",
        )
    )


class Server(uvicorn.Server):
    """uvicorn, with an end in which clients still hear their last words."""

    def __init__(
        self,
        service: Service,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        wyoming: socket.socket | None = None,
    ) -> None:
        """`wyoming` is bound to the port of that protocol, if it is served."""
        super().__init__(
            uvicorn.Config(
                service.app(),
                ws=WebSocketProtocol,
                ws_max_size=limits.max_message_bytes,
                # None: an answer waits behind sound that is not read yet, and who is
                # gone is let go for saying nothing.
                ws_ping_interval=None,
                # Off: sound is hardly compressed, and each would have a window.
                ws_per_message_deflate=False,
                lifespan="off",
                access_log=False,
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        n_files = raise_open_files() - _OTHER_FILES
        self.server_state = self._sockets = SocketState(
            limits, max(1, min(limits.max_connections, n_files))
        )
        self._service = service
        self._tls = tls
        self._wyoming = wyoming

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. uvicorn's own knows no bound for the time of a TLS handshake."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()

        def make_protocol() -> asyncio.Protocol:
            return HttpProtocol(self.config, self._sockets)

        self.servers = [
            await loop.create_server(
                make_protocol,
                sock=sock,
                ssl=self._tls,
                backlog=_BACKLOG,
                ssl_handshake_timeout=_HANDSHAKE_S if self._tls else None,
            )
            for sock in sockets or []
        ]
        if self._wyoming is not None:
            clients = WyomingServer(self._service, self._sockets)
            self.servers.append(await clients.listen(self._wyoming, _BACKLOG))
        self.started = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End gracefully; at once when told so twice."""
        del sig, frame
        self.force_exit = self.should_exit
        self.should_exit = True

    async def main_loop(self) -> None:
        await super().main_loop()
        if not self.force_exit:
            await self._service.drain()


def announce(
    sock: socket.socket,
    model: str,
    *,
    is_tls: bool = False,
    wyoming: socket.socket | None = None,
) -> None:
    """Say where the server is to be found."""
    if wyoming is not None:
        sys.stderr.write(
            f"voxmlx: Wyoming on tcp://{_address(wyoming)}, without keys\n"
        )
    url = f"{'https' if is_tls else 'http'}://{_address(sock)}"
    sys.stderr.write(f"voxmlx: {model} on {url} (Ctrl-C ends it)\n")
    sys.stderr.flush()


def _address(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
