"""An ASGI application on sockets whose connections are bounded."""

import asyncio
import logging
import socket
import ssl
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from voxmlx.web.limits import Limits
from voxmlx.web.listening import BACKLOG, raise_open_files
from voxmlx.web.sockets import HttpProtocol, SocketState, WebSocketProtocol

__all__ = ["BoundedServer"]

_HANDSHAKE_S = 10.0

# Open files that are kept for all but connections: the model, uploads, libraries.
_OTHER_FILES = 96


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


class BoundedServer(uvicorn.Server):
    """uvicorn, with connections that are bounded in time, number and bytes."""

    def __init__(
        self, app: ASGIApp, limits: Limits, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
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
                # Its own would be the whole process's, and asks standard output, which
                # may be closed.
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        n_files = raise_open_files() - _OTHER_FILES
        self.server_state = self.sockets = SocketState(
            limits, max(1, min(limits.max_connections, n_files))
        )
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. uvicorn's own knows no bound for the time of a TLS handshake."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()

        def make_protocol() -> asyncio.Protocol:
            return HttpProtocol(self.config, self.sockets)

        self.servers = [
            await loop.create_server(
                make_protocol,
                sock=sock,
                ssl=self._tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=_HANDSHAKE_S if self._tls else None,
            )
            for sock in sockets or []
        ]
        self.started = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End gracefully; at once when told so twice."""
        del sig, frame
        self.force_exit = self.should_exit
        self.should_exit = True
