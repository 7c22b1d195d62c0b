"""Events of a stream -> the response to a request, as OpenAI and Mistral have it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from voxmlx.audio.channels import Channel
from voxmlx.errors import RequestError
from voxmlx.events import Event, Finished, TextDelta, Word
from voxmlx.serve.stream_options import StreamOptions
from voxmlx.serve.token_logprobs import TokenLogprobs
from voxmlx.text.formats import FormatOptions, make_writer
from voxmlx.text.transcript import Segment, Transcript, TranscriptBuilder

__all__ = [
    "RESPONSES",
    "Answer",
    "TranscriptionParams",
    "error_object",
    "mistral_segment",
    "usage",
]


@dataclass(frozen=True, slots=True)
class TranscriptionParams:
    """Parameters of a transcription request; `name` is one of RESPONSES.

    `granularities` are those that the client named: `word`, `segment` or none.
    """

    options: StreamOptions
    name: str = "json"
    is_stream: bool = False
    granularities: frozenset[str] = frozenset()
    is_mistral: bool = False  # of the client, which a stream of events must know
    model: str = ""
    n_prompt: int = 0  # ids of the stream's prompt
    channel: Channel = None


Responder = Callable[[AsyncIterator[Event], TranscriptionParams], Awaitable[Response]]


class Answer:
    """Contents of an answer, collected from events one at a time."""

    def __init__(self, params: TranscriptionParams) -> None:
        self._params = params
        self._builder = TranscriptBuilder()
        self._found = TokenLogprobs()
        self._logprobs: list[dict[str, Any]] = []
        self._said: list[str] = []
        self.n_tokens = 0

    def feed(self, event: Event) -> list[dict[str, Any]]:
        """Take an event; return the log probabilities that it completes."""
        self._builder.feed(event)
        match event:
            case TextDelta(text):
                self._said.append(text)
            case Finished(n_tokens=n_tokens):
                self.n_tokens = n_tokens
            case _:
                pass
        logprobs = self._found.push(event)
        self._logprobs += logprobs
        return logprobs

    @property
    def text(self) -> str:
        """The deltas, joined."""
        return "".join(self._said).strip()

    @property
    def transcript(self) -> Transcript:
        return self._builder.build()

    def logprobs(self) -> dict[str, Any]:
        """Return a field for the log probabilities, if they were asked for."""
        asked = self._params.options.confidence
        return {"logprobs": self._logprobs} if asked else {}

    def segments(self) -> list[dict[str, Any]]:
        """Return the segments as Mistral's clients read them, if any were asked for."""
        transcript = self.transcript
        if "word" in self._params.granularities:
            return [mistral_segment(word) for word in transcript.words]
        if "segment" in self._params.granularities:
            return [mistral_segment(segment) for segment in transcript.segments]
        return []


async def _answer(events: AsyncIterator[Event], params: TranscriptionParams) -> Answer:
    answer = Answer(params)
    async for event in events:
        answer.feed(event)
    return answer


async def _json(events: AsyncIterator[Event], params: TranscriptionParams) -> Response:
    answer = await _answer(events, params)
    transcript = answer.transcript
    content = {
        "text": transcript.text,
        # From here on Mistral's. A language is what a model has detected: ours tells
        # none, whatever the client said.
        "model": params.model,
        "language": None,
        "segments": answer.segments(),
        "usage": usage(transcript, params, answer.n_tokens),
    }
    return JSONResponse(content | answer.logprobs() | _warnings(transcript))


async def _text(events: AsyncIterator[Event], params: TranscriptionParams) -> Response:
    answer = await _answer(events, params)
    return PlainTextResponse(answer.transcript.text + "\n")


async def _verbose_json(
    events: AsyncIterator[Event], params: TranscriptionParams
) -> Response:
    answer = await _answer(events, params)
    transcript = answer.transcript
    granularities = params.granularities or {"segment", "word"}
    content: dict[str, Any] = {
        "task": "transcribe",
        "language": "unknown",  # OpenAI's clients need some text
        "duration": transcript.duration_ms / 1000,
        "text": transcript.text,
        "usage": usage(transcript, params, answer.n_tokens),
    }
    if "segment" in granularities:
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
    if "word" in granularities:
        content["words"] = [
            {
                "word": word.text,
                "start": word.start_ms / 1000,
                "end": word.end_ms / 1000,
            }
            | ({} if word.confidence is None else {"confidence": word.confidence})
            for word in transcript.words
        ]
    return JSONResponse(content | answer.logprobs() | _warnings(transcript))


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


def usage(
    transcript: Transcript, params: TranscriptionParams, n_tokens: int
) -> dict[str, Any]:
    """Return what was used, in OpenAI's fields for a duration and in Mistral's."""
    return {
        "type": "duration",
        "seconds": transcript.duration_ms / 1000,
        "prompt_audio_seconds": transcript.duration_ms // 1000,
        "prompt_tokens": params.n_prompt,
        "completion_tokens": n_tokens,
        "total_tokens": params.n_prompt + n_tokens,
    }


def mistral_segment(
    piece: Segment | Word, kind: str = "transcription_segment"
) -> dict[str, Any]:
    """A segment or word as Mistral's clients read it."""
    start_s, end_s = piece.start_ms / 1000, piece.end_ms / 1000
    return {"type": kind, "text": piece.text, "start": start_s, "end": end_s}


def error_object(error: RequestError) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    is_ours = error.status >= 500
    return {
        "message": str(error),
        "type": "server_error" if is_ours else "invalid_request_error",
        "param": error.param,
        "code": error.code,
    }
