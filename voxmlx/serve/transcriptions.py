"""A sound file in a request -> its transcript, for clients of OpenAI and Mistral."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from starlette.requests import Request
from starlette.responses import (
    Response,
    StreamingResponse,
)
from starlette.types import Receive, Scope, Send

from voxmlx.errors import RequestError
from voxmlx.events import Event, Finished
from voxmlx.serve.event_streams import server_sent_events
from voxmlx.serve.multipart_form import (
    MultipartForm,
    UrlEncodedForm,
    read_form,
)
from voxmlx.serve.protocol import (
    Failed,
    Finish,
    Flushed,
    Lagging,
    Notice,
    Open,
    PushAudio,
    Served,
)
from voxmlx.serve.response_formats import RESPONSES, TranscriptionParams
from voxmlx.serve.scheduler import Scheduler
from voxmlx.serve.sound_reader import SoundReader
from voxmlx.serve.upload_body import UploadBody, UploadTotal
from voxmlx.serve.upload_fields import FormFields, read_params
from voxmlx.web.limits import Limits

__all__ = ["Uploads"]

# How much of a file is read before it can be decoded.
_AHEAD_MS = 10_000


class Uploads:
    """All requests for transcripts of files that are being answered."""

    def __init__(self, scheduler: Scheduler, limits: Limits, served: Served) -> None:
        self._scheduler = scheduler
        self._limits = limits
        self._served = served
        self._total = UploadTotal(limits.max_upload_bytes)
        self._jobs: set[UploadJob] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def n_bytes(self) -> int:
        """Return the bytes of all files that are here."""
        return self._total.n_bytes

    async def respond(self, request: Request) -> Response:
        """Answer a `POST /v1/audio/transcriptions`. Raises RequestError, OSError."""
        form = read_form(request.headers.get("content-type", ""))
        body = UploadBody(request, self._limits, self._total)
        # A body is not taken from a client for whom there is no slot.
        job = UploadJob(body, self._scheduler, self._limits, self._jobs.discard)
        self._jobs.add(job)
        try:
            await job.receive(form)
            agent = request.headers.get("user-agent", "")
            params = read_params(FormFields(form.fields), self._served, agent)
            await job.start(params, Path(form.finish()).name or "sound")
            if params.is_stream:
                return _EventStream(job, params)
            return await _unless_gone(request, job, params)
        except BaseException:
            job.close()
            raise

    def stop_receiving(self, error: RequestError) -> None:
        """Refuse all bodies that are still to come."""
        for job in list(self._jobs):
            job.stop_receiving(error)

    def stop(self, error: RequestError) -> None:
        """Refuse all that are still here."""
        for job in list(self._jobs):
            job.stop(error)


class UploadJob:
    """One file on its way through a stream."""

    def __init__(
        self,
        body: UploadBody,
        scheduler: Scheduler,
        limits: Limits,
        on_close: Callable[["UploadJob"], None],
    ) -> None:
        """Raises RequestError where there is no slot for it."""
        self._body = body
        self._limits = limits
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._notices: asyncio.Queue[Notice | RequestError] = asyncio.Queue()
        self._slot = scheduler.open_slot(self._deliver, "file")
        self._reader = SoundReader(
            has_room=self._has_room,
            hear=lambda piece: self._slot.submit(PushAudio(piece)),
            warn=lambda warning: self._tell([warning]),
            end=self._end,
        )

    async def receive(self, form: MultipartForm | UrlEncodedForm) -> None:
        """Take the body, and keep its file. Raises RequestError, OSError."""
        await self._reader.write(b"")  # a disk that takes nothing is found out first
        while (content := await self._body.next()) is not None:
            if sound := form.feed(content):
                await self._reader.write(sound)

    async def start(self, params: TranscriptionParams, name: str) -> None:
        """Begin to decode the file, which messages call `name`. Raises RequestError."""
        self._slot.submit(Open(params.options))
        await self._reader.open(name, params.channel)

    def stop_receiving(self, error: RequestError) -> None:
        """Refuse what is still to come of the body."""
        self._body.refuse(error)

    def stop(self, error: RequestError) -> None:
        """Answer with the error, whatever the job is about."""
        self._body.refuse(error)
        self._notices.put_nowait(error)

    def _end(self, error: RequestError | None) -> None:
        """On the reader's thread."""
        if error is None:
            self._slot.submit(Finish())
        else:
            self._tell([error])

    def _has_room(self) -> bool:
        """Neither the decoder nor a client that does not read is far behind."""
        waiting_ms, n_most = self._slot.waiting_ms, self._limits.max_unread_events
        return waiting_ms <= _AHEAD_MS and self.n_unread <= n_most

    @property
    def n_unread(self) -> int:
        """Return how many notices wait for the client."""
        return self._notices.qsize()

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
        self._reader.stop()
        self._body.close()
        self._on_close(self)

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


async def _unless_gone(
    request: Request, job: UploadJob, params: TranscriptionParams
) -> Response:
    """The whole answer; given up when nobody waits for it any more."""
    async with _until_disconnect(request) as gone:
        answer = asyncio.ensure_future(RESPONSES[params.name](job.events(), params))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            return await answer if answer.done() else Response(status_code=499)
        finally:
            job.close()
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)


@asynccontextmanager
async def _until_disconnect(request: Request) -> AsyncGenerator["asyncio.Task[None]"]:
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

    def __init__(self, job: UploadJob, params: TranscriptionParams) -> None:
        super().__init__(
            server_sent_events(job.events(), params), media_type="text/event-stream"
        )
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.close()
