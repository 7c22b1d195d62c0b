"""A relay between a client and a server, which can be cut or fall silent."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["Relay", "relaying"]


class Relay:
    """Listens on one port for as long as it is `open`, and sends all on to `target`."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.n_connections = 0
        self.n_back = 0  # bytes that came from the server
        self.is_mute = False
        self._due: tuple[int, Callable[[], None]] | None = None
        self._pairs: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.open()

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=[self._listener]).start()

    @contextmanager
    def after(self, n_bytes: int, do: Callable[[], None]) -> Iterator[None]:
        """Do something once the server has said so much, before any more is passed."""
        self._due = n_bytes, do
        yield
        assert self._due is None, "the server has said less"

    def cut(self) -> None:
        """As when the server is killed: nobody listens, nobody says goodbye."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.drop()

    def drop(self) -> None:
        """End all connections; others may come."""
        pairs, self._pairs = self._pairs, []
        for one in pairs:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            self.n_connections += 1
            there = socket.create_connection(("127.0.0.1", self.target))
            self._pairs += [here, there]
            self.is_mute = False
            for ends in ((here, there), (there, here)):
                threading.Thread(target=self._pass, args=ends).start()

    def _do_what_is_due(self) -> None:
        if self._due is not None and self.n_back > self._due[0]:
            _, do = self._due
            self._due = None
            do()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        n_connection = self.n_connections
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                if self.is_mute and n_connection == self.n_connections:
                    continue
                if source.getpeername()[1] == self.target:
                    self.n_back += len(piece)
                    self._do_what_is_due()
                sink.sendall(piece)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        source.close()


@contextmanager
def relaying(target: int) -> Iterator[Relay]:
    relay = Relay(target)
    try:
        yield relay
    finally:
        relay.cut()
