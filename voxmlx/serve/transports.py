"""Sockets that carry a client's messages: a websocket, or TCP with Wyoming's events."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from starlette.websockets import WebSocket, WebSocketDisconnect

from voxmlx.errors import RequestError
from voxmlx.serve.json_object import JsonObject
from voxmlx.serve.protocol import Close
from voxmlx.serve.wyoming_wire import EventReader, encode_event
from voxmlx.web.limits import Limits

__all__ = ["PartialBytes", "TcpTransport", "WebSocketTransport"]

# Read at once: what is read is answered before others are.
MAX_READ_BYTES = 1 << 15


class WebSocketTransport:
    """Messages of text, as JSON."""

    def __init__(self, websocket: WebSocket, subprotocol: str | None = None) -> None:
        self._websocket = websocket
        self._subprotocol = subprotocol

    async def open(self) -> None:
        await self._websocket.accept(self._subprotocol)

    async def receive(self) -> str | bytes | None:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        return message.get("text") or message.get("bytes") or ""

    def encode(self, message: Mapping[str, Any]) -> str:
        return json.dumps(message)

    async def send(self, encoded: str) -> None:
        try:
            await self._websocket.send_text(encoded)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionError from error

    async def close(self, close: Close) -> None:
        try:
            await self._websocket.close(close.code, close.reason)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionError from error


@dataclass(slots=True)
class PartialBytes:
    """Bytes of events that are not whole yet, of all clients."""

    max_bytes: int
    n_bytes: int = 0


class TcpTransport:
    """Events of Wyoming. Each has a clock, from its first byte to its last.

    What is held of events that are not whole counts in `partial`, until `leave`.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limits: Limits,
        partial: PartialBytes,
    ) -> None:
        self._partial = partial
        self._n_counted = 0
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._events = EventReader(limits.max_message_bytes)
        self._reading = asyncio.Lock()  # only one may wait for bytes
        self._due: float | None = None  # when an event that has begun must be whole
        if hasattr(writer.transport, "max_size"):  # asyncio's own
            cast(Any, writer.transport).max_size = MAX_READ_BYTES

    async def open(self) -> None:
        """Nothing is to be said before the first event."""

    async def receive(self) -> JsonObject | None:
        while (event := self._events.next()) is None:
            if not self._events.is_inside:
                self._due = None
            elif self._due is None:
                now = asyncio.get_running_loop().time()
                self._due = now + self._limits.head_s
            try:
                async with asyncio.timeout_at(self._due), self._reading:
                    content = await self._reader.read(MAX_READ_BYTES)
            except TimeoutError:
                raise RequestError(
                    f"an event was not whole {self._limits.head_s:g} s after it began",
                    code="too_slow",
                    status=408,
                ) from None
            except ConnectionError:
                return None
            if not content:
                return None
            self._events.feed(content)
            self._count(self._events.n_pending)
        self._due = None
        self._count(self._events.n_pending)
        return event

    def _count(self, n_bytes: int) -> None:
        self._partial.n_bytes += n_bytes - self._n_counted
        self._n_counted = n_bytes
        is_much = self._partial.n_bytes > self._partial.max_bytes
        if is_much and n_bytes > MAX_READ_BYTES:  # who sends little is not refused
            raise RequestError(
                "events of all clients are too much for the server now; send shorter "
                "ones, or try again later",
                code="at_capacity",
                status=503,
            )

    def leave(self) -> None:
        """Count no bytes any more."""
        self._count(0)

    def encode(self, message: Mapping[str, Any]) -> bytes:
        return encode_event(message)

    async def send(self, encoded: bytes) -> None:
        self._writer.write(encoded)
        try:
            async with asyncio.timeout(self._limits.write_s):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()
            raise ConnectionError from None

    async def close(self, close: Close) -> None:
        """Let the client read what it was sent, though it may still be sending."""
        self._writer.write_eof()
        await self._writer.drain()
        async with self._reading:
            while await self._reader.read(MAX_READ_BYTES):
                pass
