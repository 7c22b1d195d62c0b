"""A service on a socket, until a signal ends it gracefully."""

import asyncio
import socket
import ssl
import sys
from pathlib import Path

from voxmlx.errors import ServerError
from voxmlx.serve.app import Service
from voxmlx.serve.wyoming_server import WyomingServer
from voxmlx.web.bounded_server import BoundedServer
from voxmlx.web.limits import Limits
from voxmlx.web.listening import BACKLOG, address_of

__all__ = ["Server", "announce", "tls_context"]


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


class Server(BoundedServer):
    """A server with an end in which clients still get their last words."""

    def __init__(
        self,
        service: Service,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        wyoming: socket.socket | None = None,
    ) -> None:
        """`wyoming` is bound to the port of that protocol, if it is served."""
        super().__init__(service.app(), limits, tls)
        self._service = service
        self._wyoming = wyoming

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen for both protocols."""
        others: list[asyncio.Server] = []
        if self._wyoming is not None:
            clients = WyomingServer(self._service, self.sockets)
            others = [await clients.listen(self._wyoming, BACKLOG)]
        await super().startup(sockets)
        self.servers += others

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
            f"voxmlx: Wyoming on tcp://{address_of(wyoming)}, without keys\n"
        )
    url = f"{'https' if is_tls else 'http'}://{address_of(sock)}"
    sys.stderr.write(f"voxmlx: {model} on {url} (Ctrl-C ends it)\n")
    sys.stderr.flush()
