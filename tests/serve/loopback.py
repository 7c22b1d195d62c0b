"""A server on a free port of this machine, as `voxmlx.serve` runs it."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import numpy as np

from voxmlx.checkpoint import Checkpoint
from voxmlx.serve.app import Service
from voxmlx.serve.metrics import Metrics
from voxmlx.serve.scheduler import Scheduler
from voxmlx.serve.server import Server
from voxmlx.serve.stream_options import StreamOptions
from voxmlx.web.access import Access
from voxmlx.web.limits import Limits
from voxmlx.web.listening import listen

__all__ = [
    "IDLE",
    "PATIENCE_S",
    "Loopback",
    "pcm16",
    "said",
    "serving",
    "sound",
    "until",
]

PATIENCE_S = 120

# What runs in the loop of a server that has nothing to do.
IDLE = ["Loopback._run.<locals>.run", "Loopback.tasks.<locals>.names"]


class Connections(set[Any]):
    """Connections that are open, and how many there have been."""

    n_added = 0

    def add(self, connection: Any, /) -> None:
        super().add(connection)
        self.n_added += 1


class Loopback:
    """A server on a thread of its own."""

    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        max_sessions: int,
        keys: tuple[str, ...],
        origins: tuple[str, ...],
        limits: Limits,
    ) -> None:
        metrics = Metrics()
        self.scheduler = Scheduler(
            checkpoint, max_sessions=max_sessions, metrics=metrics
        )
        self.service = Service(
            self.scheduler,
            metrics,
            model="demo",
            options=StreamOptions(),
            access=Access.for_host("127.0.0.1", keys, origins),
            limits=limits,
        )
        self._socket = listen("127.0.0.1", 0)
        self.port: int = self._socket.getsockname()[1]
        self._wyoming = listen("127.0.0.1", 0)
        self.wyoming_port: int = self._wyoming.getsockname()[1]
        self._server = Server(self.service, limits, wyoming=self._wyoming)
        self._connections = self._server.sockets.connections = Connections()
        self._thread = threading.Thread(target=self._run, name="loopback")

    def _run(self) -> None:
        async def run() -> None:
            self.loop = asyncio.get_running_loop()
            await self._server.serve([self._socket])

        asyncio.run(run())

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.scheduler.start()
        self._thread.start()
        until(lambda: self._server.started)

    def end(self) -> None:
        """As a signal does."""
        self._server.handle_exit(0, None)

    def stop(self) -> None:
        self.end()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self._socket.close()
        self._wyoming.close()
        self.scheduler.stop()

    def lets_all_go(self, within_s: float) -> Future[bool]:
        """Whether connections that come from now on end in so many seconds.

        They are those of the server's loop, whose timers run in the order of their
        times, however busy the machine is.
        """

        async def look() -> bool:
            while self._connections.n_added == n_before:
                await asyncio.sleep(0.01)
            end = self.loop.time() + within_s
            while self._connections and self.loop.time() < end:
                await asyncio.sleep(0.01)
            for _ in range(9):  # what was due by then is done
                await asyncio.sleep(0)
            return not self._connections

        n_before = self._connections.n_added
        return asyncio.run_coroutine_threadsafe(look(), self.loop)

    def tasks(self) -> list[str]:
        """What runs in the server's loop, by the names of the coroutines."""

        async def names() -> list[str]:
            coroutines = [task.get_coro() for task in asyncio.all_tasks()]
            return sorted(str(getattr(one, "__qualname__", one)) for one in coroutines)

        return asyncio.run_coroutine_threadsafe(names(), self.loop).result(PATIENCE_S)


@contextmanager
def serving(
    checkpoint: Checkpoint,
    *,
    max_sessions: int = 16,
    keys: tuple[str, ...] = (),
    origins: tuple[str, ...] = (),
    limits: Limits | None = None,
) -> Iterator[Loopback]:
    server = Loopback(
        checkpoint,
        max_sessions=max_sessions,
        keys=keys,
        origins=origins,
        limits=limits or Limits(),
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what must come true."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def pcm16(samples: np.ndarray) -> bytes:
    """16-bit sound as clients send it."""
    return (samples * 32768).clip(-32768, 32767).astype("<i2").tobytes()


def sound(samples: np.ndarray, piece: int = 1600) -> Iterator[str]:
    """The messages in which a client of vLLM's dialect sends it."""
    for start in range(0, len(samples), piece):
        audio = base64.b64encode(pcm16(samples[start : start + piece])).decode()
        yield json.dumps({"type": "input_audio_buffer.append", "audio": audio})


def said(websocket: Any, last: str) -> list[dict[str, Any]]:
    """A websocket's messages up to the one of type `last`."""
    messages: list[dict[str, Any]] = []
    while not messages or messages[-1]["type"] != last:
        messages.append(json.loads(websocket.recv(timeout=PATIENCE_S)))
    return messages
