"""Events of a stream for applications with an event loop."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
)
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from voxmlx.checkpoint import Checkpoint
from voxmlx.errors import AudioError
from voxmlx.events import Event
from voxmlx.forks import refuse_fork
from voxmlx.session import Session

__all__ = ["EventStream", "stream"]

Result = TypeVar("Result")
Source = AsyncIterable[NDArray[Any]] | Iterable[NDArray[Any]]

# One thread owns MLX: all streams of an application are decoded on it, in turn, so
# that its event loop is never held up.
_decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="voxmlx")


class _Flush:
    """Stands between two pieces of sound where `EventStream.flush` was called."""


_FLUSH: Final = _Flush()
_END: Final[Any] = object()


def stream(source: Source, checkpoint: Checkpoint, **options: Any) -> "EventStream":
    """Decode sound as it comes: `async for event in voxmlx.stream(source, checkpoint)`.

    `source` gives samples as `Session.push` takes them: 16 kHz mono, in pieces of any
    size. It is an async iterable or a plain one. A plain one is read on a thread, so
    it may wait. `options` are those of Session. When the source ends, the last words
    follow and then a `Finished`.

    The next piece is awaited while one is decoded. Raises AudioError for a source of
    another kind, SessionError in a forked child. The events raise what Session raises,
    and what the source does.
    """
    return EventStream(source, checkpoint, **options)


class EventStream(AsyncIterator[Event]):
    """Events of one source of sound; made by `stream`.

    As a context manager (`async with voxmlx.stream(...) as events`) it closes the
    source wherever the block is left. Without one, call `aclose` after a `break`.
    """

    def __init__(self, source: Source, checkpoint: Checkpoint, **options: Any) -> None:
        """See `stream`."""
        refuse_fork()
        _refuse_no_source(source)
        self._inputs: asyncio.Queue[NDArray[Any] | _Flush | Exception | None]
        self._inputs = asyncio.Queue()
        # One piece waits for the decoder. Flushes wait beside it: whoever asks for
        # one may be the same task that takes the events.
        self._room = asyncio.Semaphore(1)
        self._events = self._decode(source, partial(Session, checkpoint, **options))

    async def __anext__(self) -> Event:
        return await anext(self._events)

    def flush(self) -> None:
        """Bring out the words spoken so far, without ending the stream.

        They come as events, after those of the sound that the source has given. From
        the event loop's thread.
        """
        self._inputs.put_nowait(_FLUSH)

    async def aclose(self) -> None:
        """Stop decoding and close the source; words not yet out are lost."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _decode(
        self, source: Source, open_session: Callable[[], Session]
    ) -> AsyncGenerator[Event]:
        session = await _decoded(open_session)
        reader = asyncio.create_task(self._read(_pieces(source)))
        try:
            while (wanted := await self._inputs.get()) is not None:
                if isinstance(wanted, Exception):
                    raise wanted
                if isinstance(wanted, _Flush):
                    events = await _decoded(session.flush)
                else:
                    self._room.release()
                    events = await _decoded(partial(session.push, wanted))
                for event in events:
                    yield event
            for event in await _decoded(session.finish):
                yield event
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, pieces: AsyncGenerator[NDArray[Any]]) -> None:
        """Put every piece, then None or what went wrong; close the source."""
        try:
            async for samples in pieces:
                await self._room.acquire()
                self._inputs.put_nowait(samples)
        except Exception as error:  # whatever a source may raise is for our caller
            self._inputs.put_nowait(error)
        else:
            self._inputs.put_nowait(None)
        finally:
            await pieces.aclose()


def _refuse_no_source(source: Any) -> None:
    """Raise AudioError for what is no source, or only looks like one."""
    advice = None
    if isinstance(source, np.ndarray):
        advice = "one array; for sound that is there already use [array]"
    elif isinstance(source, (str, bytes, PurePath)):
        advice = "a name; open the file with voxmlx.open_audio(NAME).pieces()"
    elif not isinstance(source, (AsyncIterable, Iterable)):
        advice = f"{type(source).__name__}; expected an iterable, async or plain"
    if advice is not None:
        raise AudioError(
            f"the source of a stream gives arrays of samples, got {advice}"
        )


async def _pieces(source: Source) -> AsyncGenerator[NDArray[Any]]:
    """Yield the pieces of either kind of source, and close the source at the end."""
    if isinstance(source, AsyncIterable):
        try:
            async for samples in source:
                yield samples
        finally:
            if isinstance(source, AsyncGenerator):
                await source.aclose()
        return
    iterator = iter(source)
    reading: asyncio.Future[Any] | None = None
    try:
        while True:
            reading = asyncio.ensure_future(asyncio.to_thread(next, iterator, _END))
            samples = await asyncio.shield(reading)
            if samples is _END:
                return
            yield samples
    finally:
        # A generator cannot be closed while a thread runs it.
        if reading is not None:
            await asyncio.wait([reading])
        close = getattr(iterator, "close", None)
        if close is not None:
            await asyncio.to_thread(close)


async def _decoded(work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(_decoder, work)
