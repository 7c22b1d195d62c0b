"""A sound file in a request -> its transcript, in OpenAI's formats."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import (
    Response,
    StreamingResponse,
)

from voxmlx.audio.files import AudioFile, open_audio
from voxmlx.errors import AudioError, RequestError
from voxmlx.events import Event, Finished
from voxmlx.serve.answers import ANSWERS, Wish, server_sent_events
from voxmlx.serve.limits import Limits
from voxmlx.serve.protocol import (
    Failed,
    Finish,
    Flushed,
    Hear,
    Lagging,
    Notice,
    Open,
    StreamOptions,
    checked_options,
)
from voxmlx.serve.scheduler import Scheduler

__all__ = ["transcribe_request"]

# How often to look whether there is room for more sound of a file.
_LOOK_S = 0.02

# How much of a file is read before it can be decoded.
_AHEAD_MS = 10_000

# Fields and their sizes: what is no file is a few words.
_MAX_FIELDS, _MAX_FIELD_BYTES = 100, 256 << 10


async def transcribe_request(
    request: Request, scheduler: Scheduler, limits: Limits, defaults: StreamOptions
) -> Response:
    """Answer a `POST /v1/audio/transcriptions`. Raises RequestError."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise RequestError(
            "file is missing, expected a sound file in multipart/form-data",
            param="file",
        )
    try:
        form = await request.form(
            max_files=1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
        )
    except FormParserError as error:  # not every starlette handles them
        raise RequestError(f"the form cannot be read: {error}") from None
    try:
        wish = _read_wish(form, defaults)
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise RequestError("file is missing, expected a sound file", param="file")
        name = Path(upload.filename or "sound").name
        job = _Job(wish, scheduler, limits, name)
        await job.take(upload.file)
    finally:
        await form.close()
    if wish.is_stream:
        try:
            await job.start()
        except BaseException:
            job.close()
            raise
        return StreamingResponse(_server_sent(job), media_type="text/event-stream")
    try:
        await job.start()
        return await _unless_gone(request, job)
    finally:
        job.close()


def _read_wish(form: FormData, defaults: StreamOptions) -> Wish:
    name = _field(form, "response_format") or "json"
    if name not in ANSWERS:
        raise RequestError(
            f"response_format {name[:40]!r} is unknown, expected one of "
            f"{', '.join(ANSWERS)}",
            param="response_format",
        )
    granularities = {
        str(value)
        for key in ("timestamp_granularities", "timestamp_granularities[]")
        for value in form.getlist(key)
    }
    if not granularities <= {"word", "segment"}:
        raise RequestError(
            "timestamp_granularities are word and segment",
            param="timestamp_granularities",
        )
    options = replace(
        defaults,
        delay_ms=_whole(form, "delay_ms", defaults.delay_ms),
        hotwords=tuple(
            str(value)
            for key in ("keywords", "keywords[]")
            for value in form.getlist(key)
        ),
    )
    checked_options(options)
    return Wish(
        options,
        name,
        is_stream=(_field(form, "stream") or "").lower() in ("true", "1"),
        language=_field(form, "language"),
        granularities=frozenset(granularities or {"word", "segment"}),
    )


def _field(form: FormData, name: str) -> str | None:
    value = form.get(name)
    if isinstance(value, UploadFile):
        raise RequestError(f"{name} is a file, expected text", param=name)
    return value or None


def _whole(form: FormData, name: str, default: int) -> int:
    text = _field(form, name)
    if text is None:
        return default
    try:
        return int(text)
    except ValueError:
        raise RequestError(
            f"{name} is {text[:40]!r}, expected a whole number", param=name
        ) from None


class _Job:
    """One file on its way through a stream."""

    def __init__(
        self, wish: Wish, scheduler: Scheduler, limits: Limits, name: str
    ) -> None:
        self.wish = wish
        self._limits = limits
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._notices: asyncio.Queue[Notice | RequestError] = asyncio.Queue()
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._audio: AudioFile | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._seat = scheduler.seat(self._deliver)

    async def take(self, file: BinaryIO) -> None:
        """Keep the file where a decoder can open it. Raises RequestError."""
        try:
            await asyncio.to_thread(self._take, file)
        except BaseException:
            self.close()
            raise

    def _take(self, file: BinaryIO) -> None:
        # `open_audio` wants a path: sound files are read by seeking, as they are needed.
        self._directory = tempfile.TemporaryDirectory(prefix="voxmlx-")
        path = Path(self._directory.name, "sound")
        with open(path, "wb") as copy:
            shutil.copyfileobj(file, copy)
        try:
            self._audio = open_audio(path)
        except AudioError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: AudioError) -> RequestError:
        message = str(error)
        if self._directory is not None:
            path = str(Path(self._directory.name, "sound"))
            message = message.replace(path, self._name)
        return RequestError(message, code="invalid_audio", param="file")

    async def start(self) -> None:
        self._seat.send(Open(self.wish.options))
        self._feeder = asyncio.create_task(self._feed(), name="voxmlx-feed")

    async def _feed(self) -> None:
        assert self._audio is not None
        pieces = self._audio.pieces(piece_s=2.0)
        try:
            while (piece := await asyncio.to_thread(_next, pieces)) is not None:
                self._seat.send(Hear(piece))
                while self._is_ahead():
                    await asyncio.sleep(_LOOK_S)
        except AudioError as error:
            self._notices.put_nowait(self._unreadable(error))
            return
        self._seat.send(Finish())

    def _is_ahead(self) -> bool:
        """Of the decoder, or of a client that does not read."""
        n_unread = self._notices.qsize()
        waiting_ms = self._seat.waiting_ms
        return waiting_ms > _AHEAD_MS or n_unread > self._limits.max_unread_messages

    async def events(self) -> AsyncIterator[Event]:
        """Until `Finished`. Raises RequestError for a file that cannot be read."""
        while True:
            match await self._notices.get():
                case RequestError() as error:
                    raise error
                case Failed(error):
                    raise error
                case Flushed() | Lagging():
                    pass
                case event:
                    yield event
                    if isinstance(event, Finished):
                        return

    def close(self) -> None:
        """Leave nothing behind. Any number of times."""
        self._seat.leave()
        feeder, self._feeder = self._feeder, None
        if feeder is not None and not feeder.done():
            feeder.cancel()
            # Its thread may still be reading: the file is closed after it.
            feeder.add_done_callback(lambda _: self._close_file())
        else:
            self._close_file()

    def _close_file(self) -> None:
        if self._audio is not None:
            self._audio.close()
            self._audio = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _deliver(self, notices: list[Notice]) -> None:
        """On the scheduler's thread."""
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._put, notices)

    def _put(self, notices: list[Notice]) -> None:
        for notice in notices:
            self._notices.put_nowait(notice)


def _next(pieces: Iterator[np.ndarray]) -> np.ndarray | None:
    return next(pieces, None)


async def _unless_gone(request: Request, job: _Job) -> Response:
    """The whole answer; given up when nobody waits for it any more."""
    async with _until_disconnect(request) as gone:
        answer = asyncio.ensure_future(ANSWERS[job.wish.name](job.events(), job.wish))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            return await answer if answer.done() else Response(status_code=499)
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)


@asynccontextmanager
async def _until_disconnect(request: Request) -> AsyncIterator["asyncio.Task[None]"]:
    async def wait() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.create_task(wait(), name="voxmlx-disconnect")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _server_sent(job: _Job) -> AsyncIterator[bytes]:
    try:
        async for message in server_sent_events(job.events()):
            yield message
    finally:
        job.close()
