"""Events of a stream for applications with an event loop."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import mlx.core as mx
from numpy.typing import NDArray

from voxmlx.checkpoint import Checkpoint
from voxmlx.events import Event
from voxmlx.session import Session

__all__ = ["stream"]

Result = TypeVar("Result")

# One thread owns MLX: all streams of an application are decoded on it, in turn, so
# that its event loop is never held up.
_decoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="voxmlx")


async def stream(
    source: AsyncIterable[NDArray[Any]], checkpoint: Checkpoint, **options: Any
) -> AsyncIterator[Event]:
    """Decode sound as it comes: `async for event in voxmlx.stream(source, checkpoint)`.

    `source` gives samples as `Session.push` takes them: 16 kHz mono, in pieces of any
    size. `options` are Session's. When the source ends, the last words follow and
    then a `Finished`; when the caller stops listening, the source is closed.

    While one piece is decoded the next is already awaited, so a source that must not
    wait (a microphone) is held up by no more than one piece. Raises what Session
    raises, and what the source does.
    """
    session = await _decoded(partial(_open, checkpoint, options))
    pieces: asyncio.Queue[NDArray[Any] | Exception | None] = asyncio.Queue(maxsize=1)
    reader = asyncio.create_task(_read(source, pieces))
    try:
        while (samples := await pieces.get()) is not None:
            if isinstance(samples, Exception):
                raise samples
            for event in await _decoded(partial(session.push, samples)):
                yield event
        for event in await _decoded(session.finish):
            yield event
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


def _open(checkpoint: Checkpoint, options: dict[str, Any]) -> Session:
    # The weights may have been loaded on another thread, and not be read yet.
    mx.eval(checkpoint.model.parameters())
    return Session(checkpoint, **options)


async def _decoded(work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(_decoder, work)


async def _read(
    source: AsyncIterable[NDArray[Any]],
    pieces: "asyncio.Queue[NDArray[Any] | Exception | None]",
) -> None:
    """Put every piece, then None or what went wrong; closes the source."""
    try:
        async for samples in source:
            await pieces.put(samples)
    except Exception as error:  # whatever a source may raise is for our caller
        await pieces.put(error)
    else:
        await pieces.put(None)
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()
