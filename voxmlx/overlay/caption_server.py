"""The captions' page on a socket, served by a thread of its own."""

import asyncio
import socket
import threading

from voxmlx.errors import ServerError
from voxmlx.overlay.caption_app import caption_app
from voxmlx.overlay.latest_captions import LatestCaptions
from voxmlx.web.access import Access
from voxmlx.web.bounded_server import BoundedServer
from voxmlx.web.limits import Limits
from voxmlx.web.listening import address_of

__all__ = ["CaptionServer"]

# Viewers and their connections; a browser may hold a few.
_MAX_CONNECTIONS = 64
# How long the thread may take to end; viewers have a second of it.
_END_S = 5.0


class CaptionServer:
    """A page that shows what was `set` last.

    `set` may be called from any thread, and never waits for a viewer.
    """

    def __init__(self, sock: socket.socket, access: Access) -> None:
        """Serve on a bound socket at once; `close` closes it.

        Raises ServerError where serving fails.
        """
        self.url = f"http://{address_of(sock)}"
        self._socket = sock
        self._access = access
        self._captions: LatestCaptions | None = None
        self._is_ready = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="captions", daemon=True)
        self._thread.start()
        self._is_ready.wait()
        if self._failure is not None:
            self._socket.close()
            raise ServerError(
                f"the captions' page cannot be served: {self._failure}"
            ) from self._failure

    def set(self, text: str, draft: str) -> None:
        """Show this text, a line for each paragraph, with the draft dim behind it."""
        if self._captions is not None:
            self._captions.set(text, draft)

    def close(self) -> None:
        """Empty the page, let all viewers go, and end the thread."""
        if self._captions is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end)
        self._thread.join(_END_S)
        self._socket.close()

    def _end(self) -> None:
        assert self._captions is not None
        self._captions.end()
        self._server.should_exit = True

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # told to who waits for the start
            if self._is_ready.is_set():
                raise
            self._failure = error
            self._is_ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._captions = captions = LatestCaptions()
        app = caption_app(captions, self._access)
        limits = Limits(max_connections=_MAX_CONNECTIONS)
        self._server = BoundedServer(app, limits)
        self._is_ready.set()
        await self._server.serve([self._socket])
