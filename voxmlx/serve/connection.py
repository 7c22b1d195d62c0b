"""A websocket, its conversation and its slot, for as long as the client stays."""

import asyncio
import json
import logging
from collections.abc import Sequence

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from voxmlx.errors import RequestError
from voxmlx.serve.conversation import Conversation
from voxmlx.serve.limits import Limits
from voxmlx.serve.protocol import TRY_AGAIN_LATER, Close, Effect, Notice, Send
from voxmlx.serve.scheduler import MetricsSink, Scheduler
from voxmlx.serve.slot import Slot

__all__ = ["Connection"]

_log = logging.getLogger("voxmlx.serve")

_POLICY_VIOLATION = 1008

# How often to look whether a client whose sound waits may send more.
_LOOK_S = 0.02

# Less sound than that waits for more of it: two audio tokens.
_DECODED_MS = 160

# How long a client may take to read what it was sent last.
_CLOSE_S = 2.0


class Connection:
    """One client of a realtime protocol. `run` returns when it has gone."""

    def __init__(
        self,
        websocket: WebSocket,
        conversation: Conversation,
        scheduler: Scheduler,
        limits: Limits,
        metrics: MetricsSink,
    ) -> None:
        self._websocket = websocket
        self._conversation = conversation
        self._scheduler = scheduler
        self._limits = limits
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._outbox: asyncio.Queue[str | Close] = asyncio.Queue()
        self._n_unread_bytes = 0
        self._is_too_slow = asyncio.Event()
        self._slot: Slot | None = None

    async def run(self, subprotocol: str | None = None) -> None:
        await self._websocket.accept(subprotocol)
        try:
            self._slot = self._scheduler.open_slot(self._deliver)
        except RequestError as error:
            self._follow(self._conversation.refuse(error))
            self._follow([Close(TRY_AGAIN_LATER, error.code)])
            await self._write()
            return
        tasks = [
            asyncio.create_task(work, name=f"voxmlx-{name}")
            for name, work in (
                ("read", self._read()),
                ("write", self._write()),
                ("watch", self._is_too_slow.wait()),
            )
        ]
        try:
            self._follow(self._conversation.begin())
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._slot.release()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._is_too_slow.is_set():
                await self._close(Close(_POLICY_VIOLATION, "too slow to read"))
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def end(self) -> None:
        """The server goes away: bring out the last words, then close."""
        self._follow(self._conversation.end())

    async def _read(self) -> None:
        """Hear the client until it goes."""
        assert self._slot is not None
        while True:
            message = await self._received()
            if message is None:
                if self._slot.waiting_ms >= _DECODED_MS:
                    continue  # it may well be waiting for us
                error = RequestError(
                    f"nothing was sent for {self._limits.idle_s:g} s", code="idle"
                )
                self._follow(self._conversation.refuse(error))
                self._follow([Close(_POLICY_VIOLATION, "idle")])
                await asyncio.Event().wait()  # until the writer has closed
                return
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text") or message.get("bytes") or ""
            self._follow(self._conversation.receive(text))
            while self._is_ahead(self._slot):
                await asyncio.sleep(_LOOK_S)  # it will find its socket full, and wait

    def _is_ahead(self, slot: Slot) -> bool:
        """Whether so much of the client waits that no more is read."""
        return (
            slot.waiting_ms > self._limits.max_waiting_ms
            or slot.n_waiting_commands > self._limits.max_waiting_messages
        )

    async def _received(self) -> Message | None:
        """The next message; None if the client was idle for too long."""
        assert self._slot is not None
        idle_s = 0.0
        while idle_s < self._limits.idle_s:
            wait_s = min(self._limits.quiet_s, self._limits.idle_s - idle_s)
            try:
                async with asyncio.timeout(wait_s):
                    return await self._websocket.receive()
            except TimeoutError:
                idle_s += wait_s
                if self._slot.waiting_ms < _DECODED_MS:
                    self._follow(self._conversation.quiet())
        return None

    async def _write(self) -> None:
        """Tell the client what there is to tell, until that is goodbye."""
        while True:
            message = await self._outbox.get()
            if isinstance(message, Close):
                await self._close(message)
                return
            try:
                await self._websocket.send_text(message)
            except (WebSocketDisconnect, RuntimeError):
                return  # it has gone
            self._n_unread_bytes -= len(message)

    async def _close(self, close: Close) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._websocket.close(close.code, close.reason)
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            pass  # it has gone

    def _deliver(self, notices: list[Notice]) -> None:
        """On the scheduler's thread."""
        try:
            self._loop.call_soon_threadsafe(self._notice, notices)
        except RuntimeError:  # the loop is closed, and nobody is there to be told
            _log.debug("notices of a stream came after the end")

    def _notice(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            self._follow(self._conversation.notice(notice))

    def _follow(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(message):
                    if message["type"] == "error":
                        detail = message["error"]
                        code = message.get("code") or detail["code"]
                        self._metrics.failed(str(code))
                    text = json.dumps(message)  # ASCII, so a byte for each character
                    self._n_unread_bytes += len(text)
                    self._outbox.put_nowait(text)
                case Close():
                    self._outbox.put_nowait(effect)
                case _:
                    assert self._slot is not None
                    self._slot.submit(effect)
        # One message alone may be longer: the text of days.
        is_much = self._n_unread_bytes > self._limits.max_unread_bytes
        if is_much and self._outbox.qsize() > 1:
            self._is_too_slow.set()
