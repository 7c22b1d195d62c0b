"""Operations of the server: the one list behind its routes and their description."""

from dataclasses import dataclass, field
from typing import Any

from voxmlx.serve.mistral_dialect import MistralDialect
from voxmlx.serve.openai_dialect import OpenAiDialect
from voxmlx.serve.response_formats import RESPONSES
from voxmlx.serve.upload_fields import FIELDS
from voxmlx.serve.vllm_dialect import VllmDialect

__all__ = ["OPERATIONS", "Operation"]

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path, as clients see it.

    `name` is of the endpoint in the app. `path` may have parameters, as starlette
    writes them. `content` is by media type, of the answer that is meant. `errors` are
    status codes beyond those that every operation may have.
    """

    name: str
    path: str
    summary: str
    description: str = ""
    method: str = "GET"
    is_websocket: bool = False
    is_open: bool = False  # needs no key
    content: dict[str, Schema] = field(default_factory=dict[str, Schema])
    form: Schema | None = None
    query: dict[str, str] = field(default_factory=dict[str, str])
    errors: tuple[int, ...] = ()


def _object(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object",
        "required": [*required],
        "properties": required | optional,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_NUMBER: Schema = {"type": "number"}
_NULL: Schema = {"type": "null"}
_TIMES = {"start": _NUMBER, "end": _NUMBER}

_MODEL = _object(
    {
        "id": _TEXT,
        "object": {"const": "model"},
        "created": _WHOLE,
        "owned_by": _TEXT,
        "type": _TEXT,
        "capabilities": {
            "type": "object",
            "additionalProperties": {"type": "boolean"},
        },
    }
)
_USAGE = _object(
    {
        "type": {"const": "duration"},
        "seconds": _NUMBER,
        "prompt_audio_seconds": _WHOLE,
        "prompt_tokens": _WHOLE,
        "completion_tokens": _WHOLE,
        "total_tokens": _WHOLE,
    }
)
_EXTRAS = {
    "logprobs": _list(
        _object({"token": _TEXT, "bytes": _list(_WHOLE), "logprob": _NUMBER})
    ),
    "warnings": _list({"type": "object"}),
}
_JSON = _object(
    {
        "text": _TEXT,
        "model": _TEXT,
        "language": _NULL,
        "segments": _list(_object({"type": _TEXT, "text": _TEXT, **_TIMES})),
        "usage": _USAGE,
    },
    **_EXTRAS,
)
_VERBOSE = _object(
    {
        "task": {"const": "transcribe"},
        "language": {"const": "unknown"},
        "duration": _NUMBER,
        "text": _TEXT,
        "usage": _USAGE,
    },
    segments=_list(_object({"id": _WHOLE, "text": _TEXT, **_TIMES})),
    words=_list(_object({"word": _TEXT, **_TIMES}, confidence=_NUMBER)),
    **_EXTRAS,
)


def _transcription_form() -> Schema:
    properties: Schema = {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "Sound or film, in any format that FFmpeg knows.",
        }
    }
    for name, one in FIELDS.items():
        about = {"description": one.description}
        properties[name] = (_list(one.schema) if one.is_list else one.schema) | about
    return {"type": "object", "required": ["file"], "properties": properties}


# Where a client of each dialect asks for a draft, and the message that brings it.
_DRAFTS = {
    "vLLM": ("session.update", "transcription.draft"),
    "OpenAI": (
        "session.audio.input.transcription",
        "conversation.item.input_audio_transcription.draft",
    ),
    "Mistral": ("session", "transcription.draft"),
}


def _messages(dialects: dict[str, Any]) -> str:
    parts = ["Messages are JSON texts with a `type`."]
    for name, dialect in dialects.items():
        place, kind = _DRAFTS[name]
        sent = ", ".join(f"`{one}`" for one in dialect.handlers)
        parts += [
            f"{name}'s clients send {sent}.",
            f"With `draft_delay_ms` in `{place}` they get drafts, as `{kind}`.",
        ]
    return " ".join(parts)


_MODEL_NAME = (
    "A name of the model, or one that OpenAI's or Mistral's clients send. It may be "
    "left out."
)
_HTML = {"text/html": _TEXT}
_HEALTH = _object(
    {"status": _TEXT, "model": _TEXT, "sessions": _WHOLE, "max_sessions": _WHOLE}
)

OPERATIONS = (
    Operation(
        "transcribe",
        "/v1/audio/transcriptions",
        "Transcribe a file",
        "As OpenAI's and Mistral's clients ask for it. `response_format` says which of "
        f"{', '.join(RESPONSES)} the answer is; with `stream`, it is events.",
        "POST",
        content={
            "application/json": {"anyOf": [_JSON, _VERBOSE]},
            "text/plain": _TEXT,
            "application/x-subrip": _TEXT,
            "text/vtt": _TEXT,
            "text/event-stream": _TEXT,
        },
        form=_transcription_form(),
        errors=(400, 404, 408, 413, 507),
    ),
    Operation(
        "realtime",
        "/v1/realtime",
        "Transcribe a live stream, for clients of vLLM and of OpenAI",
        _messages({"vLLM": VllmDialect, "OpenAI": OpenAiDialect}),
        is_websocket=True,
        errors=(404,),
        query={
            "intent": "`transcription` for OpenAI's dialect; else the first message "
            "tells",
            "model": _MODEL_NAME,
        },
    ),
    Operation(
        "realtime",
        "/v1/audio/transcriptions/realtime",
        "Transcribe a live stream, for clients of Mistral",
        _messages({"Mistral": MistralDialect}),
        is_websocket=True,
        query={"model": _MODEL_NAME},
        errors=(404,),
    ),
    Operation(
        "models",
        "/v1/models",
        "List the model",
        content={
            "application/json": _object(
                {"object": {"const": "list"}, "data": _list(_MODEL)}
            )
        },
    ),
    Operation(
        "model",
        "/v1/models/{name:path}",
        "Look up the model by its name",
        content={"application/json": _MODEL},
        errors=(404,),
    ),
    Operation(
        "health",
        "/health",
        "Tell whether the server works",
        "503, with the same content, while it shuts down.",
        is_open=True,
        content={"application/json": _HEALTH},
    ),
    Operation(
        "metrics",
        "/metrics",
        "Counters for Prometheus",
        content={"text/plain": _TEXT},
    ),
    Operation("page", "/", "The page of live captions", is_open=True, content=_HTML),
    Operation(
        "page_file",
        "/page/{path:path}",
        "A file of the page",
        is_open=True,
        content={"*/*": {}},
        errors=(404,),
    ),
    Operation("docs", "/docs", "This description", is_open=True, content=_HTML),
    Operation(
        "openapi",
        "/openapi.json",
        "This description, in OpenAPI 3.1",
        is_open=True,
        content={"application/json": {"type": "object"}},
    ),
)
