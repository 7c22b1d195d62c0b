"""The last lines on a page of this machine: `--serve-captions`. A listener."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from voxmlx.errors import ServerError
from voxmlx.text.caption_text import ShownText
from voxmlx.web.access import LOOPBACK, Access, is_loopback

if TYPE_CHECKING:
    from voxmlx.overlay.caption_server import CaptionServer

__all__ = ["CaptionPage", "open_caption_server", "page_address"]

_OPTION = "--serve-captions"


E = TypeVar("E")


class CaptionPage(Generic[E]):
    """Shows what has been said last on the page of a server."""

    def __init__(self, server: "CaptionServer", text: ShownText[E]) -> None:
        self._server = server
        self._text = text

    def on_audio(self, *heard: object) -> None:
        del heard

    def on_events(self, events: Sequence[E], /) -> None:
        if self._text.push(events):
            self._server.set(self._text.text, self._text.draft)

    def on_tick(self, metrics: object, /) -> None:
        del metrics


def page_address(text: str) -> tuple[str, int]:
    """Return the host and port of `PORT` or `HOST:PORT`: an argument's type."""
    host, colon, number = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    port = int(number) if number.isascii() and number.isdecimal() else -1
    if not 0 <= port <= 65_535 or (colon and not host):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address: expected PORT or HOST:PORT, a port from 0 to "
            "65535, as in 8123 or 0.0.0.0:8123"
        )
    return host or LOOPBACK, port


def open_caption_server(address: tuple[str, int]) -> "CaptionServer":
    """Serve an empty page, and say where. Raises ServerError."""
    try:
        # Local imports: what serves pages is an extra of the package.
        from voxmlx.overlay.caption_server import CaptionServer
        from voxmlx.web.listening import listen
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("voxmlx"):
            raise
        raise ServerError(
            f"{_OPTION} needs {error.name}, which is not installed; install it with "
            "pip install 'voxmlx-realtime[serve]'"
        ) from None
    host, port = address
    sock = listen(host, port, host_option=_OPTION, port_option=f"{_OPTION} PORT")
    server = CaptionServer(sock, Access.for_host(host, (), ()))
    sys.stderr.write(
        f"voxmlx: captions on {server.url}, their look on {server.url}/help\n"
    )
    if not is_loopback(host):
        sys.stderr.write(
            "voxmlx: anybody who reaches this machine can read the captions\n"
        )
    sys.stderr.flush()
    return server
