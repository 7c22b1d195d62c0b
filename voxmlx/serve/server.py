"""A service on a socket, until a signal ends it gracefully."""

import errno
import logging
import socket
import sys
from types import FrameType

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import (
    WebSocketsSansIOProtocol,
)

from voxmlx.errors import ServerError
from voxmlx.serve.app import Service
from voxmlx.serve.limits import Limits

__all__ = ["Server", "announce", "listen"]


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to a port, any free one for 0. Raises ServerError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "in use" if error.errno == errno.EADDRINUSE else "not for everybody"
            raise ServerError(
                f"port {port} of {host} is {why}; choose another --port, or 0 for any "
                "that is free"
            ) from None
        # Python adds to the reason what it tried.
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise ServerError(
            f"--host {host} is no address of this machine ({reason}); 127.0.0.1 serves "
            "this machine alone, 0.0.0.0 others too"
        ) from None


# How long a client may take to read its goodbye.
_LINGER_S = 5.0


class _Socket(WebSocketsSansIOProtocol):
    """Reads only as far as the application has, and does not outlive it for long.

    Closing waits for a client to read what it was sent, which it may never do.
    """

    async def run_asgi(self) -> None:
        try:
            await super().run_asgi()
        finally:
            self.loop.call_later(_LINGER_S, self.transport.abort)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's says more than that a client was refused.

    It shows a traceback for bytes that are no text, which it answers by closing, and
    an error for every websocket that is answered by an HTTP status.
    """
    is_no_text = (
        record.exc_info is not None and record.exc_info[0] is UnicodeDecodeError
    )
    is_denial = record.msg == "ASGI callable returned without completing handshake."
    return not (is_no_text or is_denial)


class Server(uvicorn.Server):
    """uvicorn, with an end in which clients still hear their last words."""

    def __init__(self, service: Service, limits: Limits) -> None:
        super().__init__(
            uvicorn.Config(
                service.app(),
                ws=_Socket,
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
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End gracefully; at once when told so twice."""
        del sig, frame
        self.force_exit = self.should_exit
        self.should_exit = True

    async def main_loop(self) -> None:
        await super().main_loop()
        if not self.force_exit:
            await self._service.drain()


def announce(sock: socket.socket, model: str) -> None:
    """Say where the server is to be found."""
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    sys.stderr.write(f"voxmlx: {model} on http://{shown}:{port} (Ctrl-C ends it)\n")
    sys.stderr.flush()
