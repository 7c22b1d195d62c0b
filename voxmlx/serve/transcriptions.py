"""A sound file in a request -> its transcript, in OpenAI's formats."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)

from voxmlx.audio.files import AudioFile, open_audio
from voxmlx.errors import AudioError, RequestError
from voxmlx.events import Event, Finished, TextDelta
from voxmlx.formats import FormatOptions, make_writer
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
from voxmlx.transcript import Transcript, TranscriptBuilder

__all__ = ["error_object", "transcribe_request"]

# How often to look whether there is room for more sound of a file.
_LOOK_S = 0.02

# Fields and their sizes: what is no file is a few words.
_MAX_FIELDS, _MAX_FIELD_BYTES = 100, 256 << 10


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a request asks for."""

    options: StreamOptions
    format: str = "json"
    is_stream: bool = False
    language: str | None = None
    granularities: frozenset[str] = frozenset({"segment", "word"})


async def transcribe_request(
    request: Request, scheduler: Scheduler, limits: Limits, defaults: StreamOptions
) -> Response:
    """Answer a `POST /v1/audio/transcriptions`. Raises RequestError."""
    form = await request.form(
        max_files=1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
    )
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
        return StreamingResponse(
            _server_sent_events(job), media_type="text/event-stream"
        )
    try:
        await job.start()
        return await _unless_gone(request, job)
    finally:
        job.close()


def _read_wish(form: FormData, defaults: StreamOptions) -> _Wish:
    name = _field(form, "response_format") or "json"
    if name not in _FORMATS:
        raise RequestError(
            f"response_format {name[:40]!r} is unknown, expected one of "
            f"{', '.join(_FORMATS)}",
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
    return _Wish(
        options,
        format=name,
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
        self, wish: _Wish, scheduler: Scheduler, limits: Limits, name: str
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
                while self._seat.waiting_ms > self._limits.max_waiting_ms:
                    await asyncio.sleep(_LOOK_S)
        except AudioError as error:
            self._notices.put_nowait(self._unreadable(error))
            return
        self._seat.send(Finish())

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
        answer = asyncio.ensure_future(_FORMATS[job.wish.format](job))
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


async def _transcript(job: _Job) -> Transcript:
    builder = TranscriptBuilder()
    async for event in job.events():
        builder.feed(event)
    return builder.finish()


async def _json(job: _Job) -> Response:
    transcript = await _transcript(job)
    return JSONResponse({"text": transcript.text, "usage": _usage(transcript)})


async def _text(job: _Job) -> Response:
    transcript = await _transcript(job)
    return PlainTextResponse(transcript.text + "\n")


async def _verbose_json(job: _Job) -> Response:
    transcript = await _transcript(job)
    content: dict[str, Any] = {
        "task": "transcribe",
        "language": job.wish.language or "unknown",
        "duration": transcript.duration_ms / 1000,
        "text": transcript.text,
        "usage": _usage(transcript),
    }
    if "segment" in job.wish.granularities:
        # What only Whisper has is what it says when it knows nothing.
        content["segments"] = [
            {
                "id": i,
                "start": segment.start_ms / 1000,
                "end": segment.end_ms / 1000,
                "text": segment.text,
                "seek": 0,
                "tokens": [],
                "temperature": 0.0,
                "avg_logprob": 0.0,
                "compression_ratio": 1.0,
                "no_speech_prob": 0.0,
            }
            for i, segment in enumerate(transcript.segments)
        ]
    if "word" in job.wish.granularities:
        content["words"] = [
            {
                "word": word.text,
                "start": word.start_ms / 1000,
                "end": word.end_ms / 1000,
            }
            for word in transcript.words
        ]
    return JSONResponse(content)


def _written(name: str, media_type: str) -> Callable[[_Job], Any]:
    async def respond(job: _Job) -> Response:
        writer = make_writer(name, FormatOptions())
        parts = [writer.feed(event) async for event in job.events()]
        return Response("".join([*parts, writer.finish()]), media_type=media_type)

    return respond


_FORMATS: dict[str, Callable[[_Job], Any]] = {
    "json": _json,
    "text": _text,
    "srt": _written("srt", "application/x-subrip"),
    "vtt": _written("vtt", "text/vtt"),
    "verbose_json": _verbose_json,
}


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": transcript.duration_ms / 1000}


async def _server_sent_events(job: _Job) -> AsyncIterator[bytes]:
    said: list[str] = []
    n_tokens = 0
    try:
        async for event in job.events():
            match event:
                case TextDelta(text):
                    said.append(text)
                    yield _sse({"type": "transcript.text.delta", "delta": text})
                case Finished(n_tokens=n):
                    n_tokens = n
                case _:
                    pass
        usage = {
            "type": "tokens",
            "input_tokens": n_tokens,
            "output_tokens": n_tokens,
            "total_tokens": 2 * n_tokens,
        }
        yield _sse(
            {
                "type": "transcript.text.done",
                "text": "".join(said).strip(),
                "usage": usage,
            }
        )
    except RequestError as error:
        yield _sse({"type": "error", "error": error_object(error)})
    finally:
        job.close()


def _sse(message: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(message)}\n\n".encode()


def error_object(error: RequestError) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    is_ours = error.status >= 500
    return {
        "message": str(error),
        "type": "server_error" if is_ours else "invalid_request_error",
        "param": error.param,
        "code": error.code,
    }
