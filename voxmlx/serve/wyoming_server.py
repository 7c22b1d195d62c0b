"""Wyoming's connections: who gets in, and how each of them ends."""

import asyncio
from contextlib import suppress
from typing import Any, cast

from voxmlx.errors import RequestError
from voxmlx.serve.app import Service
from voxmlx.serve.conversation import WyomingConversation
from voxmlx.serve.protocol import Close
from voxmlx.serve.transports import MAX_READ_BYTES, PartialBytes, TcpTransport
from voxmlx.serve.wyoming_wire import encode_event
from voxmlx.web.sockets import SocketState

__all__ = ["WyomingServer"]

# How long who is refused may take to read why.
_GOODBYE_S = 1.0


class WyomingServer:
    """The connections of one port. They count among all connections of the server."""

    def __init__(self, service: Service, state: SocketState) -> None:
        self._service = service
        self._state = state
        self._tasks: set[asyncio.Task[None]] = set()
        self._partial = PartialBytes(service.limits.max_partial_bytes)

    async def listen(self, sock: Any, backlog: int) -> asyncio.Server:
        """Accept connections on a socket that is bound."""
        return await asyncio.start_server(
            self._accept, sock=sock, backlog=backlog, limit=MAX_READ_BYTES
        )

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # A task of our own: asyncio's logs a traceback if it is cancelled.
        task = asyncio.create_task(self._serve(reader, writer), name="voxmlx-wyoming")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        transport = TcpTransport(reader, writer, self._service.limits, self._partial)
        client = _Client(self._service, transport, writer)
        # uvicorn's own are of a few classes, and are only ever told to shut down.
        connections: set[Any] = cast(Any, self._state.connections)
        connections.add(client)
        try:
            if (refusal := self._refusal()) is not None:
                await client.refuse(refusal)
                return
            self._state.waiting[client] = None
            await client.run()
        finally:
            self._state.waiting.pop(client, None)
            transport.leave()
            writer.transport.abort()  # who reads has been given the time to
            connections.discard(client)

    def _refusal(self) -> RequestError | None:
        if self._service.scheduler.is_draining:
            return RequestError("the server is shutting down", code="shutting_down")
        if not self._state.has_room():
            return RequestError(
                "the server has too many connections; try again later",
                code="too_many_connections",
            )
        return None


class _Client:
    """One connection, as `SocketState` counts it."""

    def __init__(
        self,
        service: Service,
        transport: TcpTransport,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._service = service
        self._writer = writer
        self._transport = transport
        self._conversation = WyomingConversation(service.served)

    @property
    def is_idle(self) -> bool:
        """Return whether no utterance is under way."""
        return not self._conversation.needs_slot

    async def run(self) -> None:
        """Serve the client until it goes."""
        await self._service.converse(self._transport, self._conversation)

    async def refuse(self, error: RequestError) -> None:
        """Say why there is no conversation."""
        message = self._conversation.dialect.error(error).message
        self._writer.write(encode_event(message))
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._transport.close(Close())

    def give_up(self) -> None:
        """Make room for another connection."""
        self._writer.transport.abort()

    def shutdown(self) -> None:
        """End at once: uvicorn asks for it once everybody has had time to end."""
        self._writer.transport.abort()
