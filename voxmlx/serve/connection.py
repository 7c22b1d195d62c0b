"""A client, its conversation and its slot, for as long as the client stays."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from voxmlx.errors import RequestError
from voxmlx.events import Finished
from voxmlx.serve.metrics_sink import MetricsSink
from voxmlx.serve.outbox import Outbox
from voxmlx.serve.protocol import (
    POLICY_VIOLATION,
    TRY_AGAIN_LATER,
    Close,
    Effect,
    Notice,
    Open,
    Send,
)
from voxmlx.serve.scheduler import Scheduler
from voxmlx.serve.slot import Slot
from voxmlx.web.limits import Limits

__all__ = ["Connection", "Received", "Talk", "Transport"]

_log = logging.getLogger("voxmlx.serve")

# How often to look whether a client whose sound waits may send more.
_LOOK_S = 0.02

# Less sound than that waits for more of it: two audio tokens.
_DECODED_MS = 160

# How long a client may take to read what it was sent last.
_CLOSE_S = 2.0

Received = TypeVar("Received")
_In = TypeVar("_In", contravariant=True)
_Out = TypeVar("_Out", covariant=True)


class Transport(Protocol[_Out]):
    """A socket with messages of a client."""

    async def open(self) -> None:
        """Make it ready for messages."""
        ...

    async def receive(self) -> _Out | None:
        """Return the next message; None if the client has gone.

        It may be cancelled, and loses nothing. Raises RequestError for what is none.
        """
        ...

    def encode(self, message: Mapping[str, Any], /) -> str | bytes:
        """Return a message as it is sent."""
        ...

    async def send(self, encoded: Any, /) -> None:
        """Send what `encode` made. Raises ConnectionError if the client has gone."""
        ...

    async def close(self, close: Close, /) -> None:
        """Say goodbye. Raises ConnectionError if the client has gone."""
        ...


class Talk(Protocol[_In]):
    """A conversation, as a connection drives it. None of it ever raises."""

    @property
    def needs_slot(self) -> bool:
        """Return whether the client holds a place, or should, before more is said."""
        ...

    def begin(self) -> list[Effect]: ...
    def receive(self, message: _In, /) -> list[Effect]: ...
    def notice(self, notice: Notice, /) -> list[Effect]: ...
    def quiet(self) -> list[Effect]: ...
    def end(self) -> list[Effect]: ...
    def refuse(self, error: RequestError, /) -> list[Effect]: ...


class Connection(Generic[Received]):
    """One client of a realtime protocol. `run` returns when it has gone."""

    def __init__(
        self,
        transport: Transport[Received],
        conversation: Talk[Received],
        scheduler: Scheduler,
        limits: Limits,
        metrics: MetricsSink,
    ) -> None:
        self._transport = transport
        self._conversation = conversation
        self._scheduler = scheduler
        self._limits = limits
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox()
        self._is_too_slow = asyncio.Event()
        self._is_closing = False
        self._slot: Slot | None = None

    async def run(self) -> None:
        await self._transport.open()
        if self._conversation.needs_slot and not self._take_slot():
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
            self._is_closing = True  # whoever asks for more, as `end` may, is late
            self._release_slot()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._is_too_slow.is_set():
                await self._close(Close(POLICY_VIOLATION, "too slow to read"))
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def end(self) -> None:
        """The server goes away: bring out the last words, then close."""
        self._follow(self._conversation.end())

    def _take_slot(self) -> bool:
        """Whether there is a slot; else the client is told so, and the connection ends."""
        try:
            self._slot = self._scheduler.open_slot(self._deliver)
        except RequestError as error:
            self._refuse(error, Close(TRY_AGAIN_LATER, error.code))
            return False
        return True

    def _release_slot(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.release()

    async def _read(self) -> None:
        """Hear the client until it goes, or is told to."""
        while not self._is_closing:
            try:
                message = await self._received()
            except TimeoutError:
                if self._waiting_ms >= _DECODED_MS:
                    continue  # it may well be waiting for us
                error = RequestError(
                    f"nothing was sent for {self._limits.idle_s:g} s", code="idle"
                )
                self._refuse(error, Close(POLICY_VIOLATION, "idle"))
            except RequestError as error:
                self._refuse(error, Close(POLICY_VIOLATION, error.code))
            else:
                if message is None:
                    return
                self._follow(self._conversation.receive(message))
                while self._is_ahead:
                    await asyncio.sleep(_LOOK_S)  # its socket fills, and it waits
        await asyncio.Event().wait()  # until the writer has closed

    @property
    def _waiting_ms(self) -> int:
        return 0 if self._slot is None else self._slot.waiting_ms

    @property
    def _is_ahead(self) -> bool:
        """Whether so much of the client waits that no more is read."""
        return self._slot is not None and (
            self._slot.waiting_ms > self._limits.max_waiting_ms
            or self._slot.n_waiting_commands > self._limits.max_waiting_messages
        )

    async def _received(self) -> Received | None:
        """The next message, or None. Raises TimeoutError if there is none for long."""
        idle_s = 0.0
        while idle_s < self._limits.idle_s:
            wait_s = min(self._limits.quiet_s, self._limits.idle_s - idle_s)
            try:
                async with asyncio.timeout(wait_s):
                    return await self._transport.receive()
            except TimeoutError:
                idle_s += wait_s
                if self._waiting_ms < _DECODED_MS:
                    self._follow(self._conversation.quiet())
        raise TimeoutError

    async def _write(self) -> None:
        """Tell the client what there is to tell, until that is goodbye."""
        while True:
            message = await self._outbox.get()
            if isinstance(message, Close):
                await self._close(message)
                return
            try:
                await self._transport.send(message)
            except ConnectionError:
                return  # it has gone
            self._outbox.sent(message)

    async def _close(self, close: Close) -> None:
        with suppress(TimeoutError, OSError):  # it has gone
            async with asyncio.timeout(_CLOSE_S):
                await self._transport.close(close)

    def _deliver(self, notices: list[Notice]) -> None:
        """On the scheduler's thread."""
        try:
            self._loop.call_soon_threadsafe(self._notice, notices)
        except RuntimeError:  # the loop is closed, and nobody is there to be told
            _log.debug("notices of a stream came after the end")

    def _notice(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            self._follow(self._conversation.notice(notice))
        has_finished = any(isinstance(notice, Finished) for notice in notices)
        if has_finished and not self._conversation.needs_slot:
            self._release_slot()

    def _refuse(self, error: RequestError, close: Close) -> None:
        self._follow([*self._conversation.refuse(error), close])

    def _follow(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(message, is_draft):
                    if message["type"] == "error":
                        code = message.get("code") or message["error"]["code"]
                        self._metrics.failed(str(code))
                    encoded = self._transport.encode(message)
                    self._outbox.put(encoded, is_draft=is_draft)
                case Close():
                    self._is_closing = True
                    self._outbox.close(effect)
                case _ if self._is_closing:
                    pass  # what else it sent is not heard
                case Open() if self._slot is None and not self._take_slot():
                    return
                case _:
                    assert self._slot is not None
                    self._slot.submit(effect)
        # One message alone may be longer: the text of days.
        is_much = self._outbox.n_bytes > self._limits.max_unread_bytes
        if is_much and len(self._outbox) > 1:
            self._is_too_slow.set()
