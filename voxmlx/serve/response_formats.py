"""Events of a stream -> the response to a request, in OpenAI's formats."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from voxmlx.errors import RequestError
from voxmlx.events import Event, Finished, SoundWarning, TextDelta
from voxmlx.serve.protocol import StreamOptions
from voxmlx.text.formats import FormatOptions, make_writer
from voxmlx.text.transcript import Transcript, TranscriptBuilder

__all__ = ["RESPONSES", "TranscriptionParams", "error_object", "server_sent_events"]


@dataclass(frozen=True, slots=True)
class TranscriptionParams:
    """Parameters of a transcription request; `name` is one of RESPONSES."""

    options: StreamOptions
    name: str = "json"
    is_stream: bool = False
    language: str | None = None
    granularities: frozenset[str] = frozenset({"segment", "word"})


Responder = Callable[[AsyncIterator[Event], TranscriptionParams], Awaitable[Response]]


async def _transcript(events: AsyncIterator[Event]) -> Transcript:
    builder = TranscriptBuilder()
    async for event in events:
        builder.feed(event)
    return builder.build()


async def _json(events: AsyncIterator[Event], _: TranscriptionParams) -> Response:
    transcript = await _transcript(events)
    content = {"text": transcript.text, "usage": _usage(transcript)}
    return JSONResponse(content | _warnings(transcript))


async def _text(events: AsyncIterator[Event], _: TranscriptionParams) -> Response:
    transcript = await _transcript(events)
    return PlainTextResponse(transcript.text + "\n")


async def _verbose_json(
    events: AsyncIterator[Event], params: TranscriptionParams
) -> Response:
    transcript = await _transcript(events)
    content: dict[str, Any] = {
        "task": "transcribe",
        "language": params.language or "unknown",
        "duration": transcript.duration_ms / 1000,
        "text": transcript.text,
        "usage": _usage(transcript),
    }
    if "segment" in params.granularities:
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
    if "word" in params.granularities:
        content["words"] = [
            {
                "word": word.text,
                "start": word.start_ms / 1000,
                "end": word.end_ms / 1000,
            }
            for word in transcript.words
        ]
    return JSONResponse(content | _warnings(transcript))


def _written(name: str, media_type: str) -> Responder:
    async def respond(events: AsyncIterator[Event], _: TranscriptionParams) -> Response:
        writer = make_writer(name, FormatOptions())
        parts = [writer.feed(event) async for event in events]
        return Response("".join([*parts, writer.end()]), media_type=media_type)

    return respond


RESPONSES: dict[str, Responder] = {
    "json": _json,
    "text": _text,
    "srt": _written("srt", "application/x-subrip"),
    "vtt": _written("vtt", "text/vtt"),
    "verbose_json": _verbose_json,
}


def _warnings(transcript: Transcript) -> dict[str, Any]:
    """Return a field for what was wrong with the file, if anything was."""
    if not transcript.warnings:
        return {}
    return {"warnings": [asdict(warning) for warning in transcript.warnings]}


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": transcript.duration_ms / 1000}


async def server_sent_events(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    """The text as it comes, then whole; or why there is no more of it."""
    said: list[str] = []
    n_tokens = 0
    try:
        async for event in events:
            match event:
                case TextDelta(text):
                    said.append(text)
                    yield _sse({"type": "transcript.text.delta", "delta": text})
                case SoundWarning():
                    yield _sse({"type": "transcript.warning"} | asdict(event))
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
