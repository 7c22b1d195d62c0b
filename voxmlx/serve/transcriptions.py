"""A sound file in a request -> its transcript, in OpenAI's formats."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import (
    Response,
    StreamingResponse,
)
from starlette.types import Receive, Scope, Send

from voxmlx.errors import RequestError
from voxmlx.events import Event, Finished
from voxmlx.serve.limits import Limits
from voxmlx.serve.protocol import (
    Failed,
    Finish,
    Flushed,
    Lagging,
    Notice,
    Open,
    PushAudio,
    StreamOptions,
    checked_options,
)
from voxmlx.serve.response_formats import (
    RESPONSES,
    TranscriptionParams,
    server_sent_events,
)
from voxmlx.serve.scheduler import Scheduler
from voxmlx.serve.sound_reader import SoundReader

__all__ = ["transcribe_request"]

# How much of a file is read before it can be decoded.
_AHEAD_MS = 10_000

# JsonObject and their sizes: what is no file is a few words.
_MAX_FIELDS, _MAX_FIELD_BYTES = 100, 256 << 10


async def transcribe_request(
    request: Request, scheduler: Scheduler, limits: Limits, defaults: StreamOptions
) -> Response:
    """Responder a `POST /v1/audio/transcriptions`. Raises RequestError."""
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
        params = _read_params(form, defaults)
        upload = _sound_file(form)
        name = Path(upload.filename or "sound").name
        job = _Job(params, scheduler, limits, name)
    except BaseException:
        await form.close()
        raise
    # From here on the file is the job's.
    try:
        await job.start(upload.file)
        if params.is_stream:
            return _EventStream(job)
        return await _unless_gone(request, job)
    except BaseException:
        job.close()
        raise


def _read_params(form: FormData, defaults: StreamOptions) -> TranscriptionParams:
    name = _field(form, "response_format") or "json"
    if name not in RESPONSES:
        raise RequestError(
            f"response_format {name[:40]!r} is unknown, expected one of "
            f"{', '.join(RESPONSES)}",
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
    return TranscriptionParams(
        options,
        name,
        is_stream=(_field(form, "stream") or "").lower() in ("true", "1"),
        language=_field(form, "language"),
        granularities=frozenset(granularities or {"word", "segment"}),
    )


def _sound_file(form: FormData) -> UploadFile:
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise RequestError("file is missing, expected a sound file", param="file")
    return upload


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
        self,
        params: TranscriptionParams,
        scheduler: Scheduler,
        limits: Limits,
        name: str,
    ) -> None:
        self.params = params
        self._limits = limits
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._notices: asyncio.Queue[Notice | RequestError] = asyncio.Queue()
        self._reader: SoundReader | None = None
        self._slot = scheduler.open_slot(self._deliver, "file")

    async def start(self, file: BinaryIO) -> None:
        """Take over `file` and begin to decode it. Raises RequestError."""
        self._slot.submit(Open(self.params.options))
        self._reader = SoundReader(
            file,
            self._name,
            has_room=self._has_room,
            hear=lambda piece: self._slot.submit(PushAudio(piece)),
            warn=lambda warning: self._tell([warning]),
            end=self._end,
        )
        await self._reader.open()

    def _end(self, error: RequestError | None) -> None:
        """On the reader's thread."""
        if error is None:
            self._slot.submit(Finish())
        else:
            self._tell([error])

    def _has_room(self) -> bool:
        """Neither the decoder nor a client that does not read is far behind."""
        n_unread = self._notices.qsize()
        waiting_ms = self._slot.waiting_ms
        return waiting_ms <= _AHEAD_MS and n_unread <= self._limits.max_unread_messages

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
        self._slot.release()
        if self._reader is not None:
            self._reader.stop()

    def _deliver(self, notices: list[Notice]) -> None:
        """On the scheduler's thread."""
        self._tell(notices)

    def _tell(self, notices: Sequence[Notice | RequestError]) -> None:
        """On any thread."""
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._put, notices)

    def _put(self, notices: Sequence[Notice | RequestError]) -> None:
        for notice in notices:
            self._notices.put_nowait(notice)


async def _unless_gone(request: Request, job: _Job) -> Response:
    """The whole answer; given up when nobody waits for it any more."""
    async with _until_disconnect(request) as gone:
        answer = asyncio.ensure_future(
            RESPONSES[job.params.name](job.events(), job.params)
        )
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            return await answer if answer.done() else Response(status_code=499)
        finally:
            job.close()
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


class _EventStream(StreamingResponse):
    """A job's events as they come; the job ends with the response, however that ends.

    A client may be gone before the first event is asked for.
    """

    def __init__(self, job: _Job) -> None:
        super().__init__(
            server_sent_events(job.events()), media_type="text/event-stream"
        )
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.close()
