"""Fields of a transcription request: what each means, and how it is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from voxmlx.audio.channels import Channel
from voxmlx.config import LEGAL_DELAYS_MS
from voxmlx.errors import RequestError
from voxmlx.serve.json_object import MAX_TEXT_CHARS
from voxmlx.serve.model_names import check_model
from voxmlx.serve.protocol import Served
from voxmlx.serve.response_formats import RESPONSES, TranscriptionParams
from voxmlx.serve.stream_options import checked_options

__all__ = ["FIELDS", "FormField", "FormFields", "read_params"]


@dataclass(frozen=True, slots=True)
class FormField:
    """A field of the form, as the API's description has it."""

    description: str
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})
    is_list: bool = False  # it may be there several times, and as `name[]`
    is_read: bool = True  # else a client may send it, and nothing changes


_TEXTS = {"type": "string", "maxLength": MAX_TEXT_CHARS}

# All but `file`. A field that is not here means nothing: every service has its own.
FIELDS: dict[str, FormField] = {
    "response_format": FormField(
        "The form of the answer.",
        {"type": "string", "enum": [*RESPONSES], "default": "json"},
    ),
    "stream": FormField(
        "Send the text as it comes, as events of the server (text/event-stream).",
        {"type": "string", "enum": ["true", "false", "1", "0"], "default": "false"},
    ),
    "timestamp_granularities": FormField(
        "Times to answer with, in `verbose_json` and for Mistral's clients.",
        {"type": "string", "enum": ["word", "segment"]},
        is_list=True,
    ),
    "include": FormField(
        "Ask for log probabilities.",
        {"type": "string", "enum": ["logprobs"]},
        is_list=True,
    ),
    "delay_ms": FormField(
        "The model's delay. A longer one makes fewer mistakes.",
        {"type": "integer", "enum": [*LEGAL_DELAYS_MS]},
    ),
    "channel": FormField(
        "The channel to transcribe, from 1, or `mix` for the mean of all.",
        {"type": "string", "pattern": "^(mix|[1-9][0-9]*)$"},
    ),
    "keywords": FormField("Hot words: phrases to expect.", _TEXTS, is_list=True),
    "context_bias": FormField("Hot words, by Mistral's name.", _TEXTS, is_list=True),
    "diarize": FormField(
        "Refused if true: speakers are not told apart.",
        {"type": "string", "enum": ["false", "0"]},
    ),
    "file_url": FormField("Refused: the server fetches nothing for a client."),
    "file_id": FormField("Refused: the server keeps no files."),
    "model": FormField(
        "A name of the model, or one that OpenAI's or Mistral's clients send.", _TEXTS
    ),
    "language": FormField("The model finds the language itself.", is_read=False),
    "prompt": FormField("The model takes none.", is_read=False),
    "temperature": FormField(
        "The model's answer is always the most probable one.",
        {"type": "number"},
        is_read=False,
    ),
}

# Fields that only Mistral's clients send, beside the name that they give themselves.
_MISTRAL_FIELDS = ("context_bias", "diarize")
_MISTRAL_AGENT = "mistral-client"


class FormFields:
    """Fields as they came; only those that `FIELDS` describes can be read."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    def __contains__(self, name: str) -> bool:
        assert FIELDS[name].is_read
        return name in self._fields

    def has(self, name: str) -> bool:
        """Return whether a field has a value."""
        return name in self and any(self._fields[name])

    def texts(self, name: str) -> list[str]:
        """All values of a field. Raises RequestError for one that is too long."""
        assert FIELDS[name].is_read
        values = [*self._fields.get(name, []), *self._fields.get(f"{name}[]", [])]
        if any(len(value) > MAX_TEXT_CHARS for value in values):
            raise RequestError(
                f"{name} has more than {MAX_TEXT_CHARS} characters", param=name
            )
        return values

    def text(self, name: str) -> str | None:
        """The last value of a field; None where there is none, or it is empty."""
        values = self.texts(name)
        return (values[-1] or None) if values else None

    def flag(self, name: str) -> bool:
        return (self.text(name) or "").lower() in ("true", "1")

    def whole(self, name: str, default: int) -> int:
        """A whole number. Raises RequestError."""
        text = self.text(name)
        if text is None:
            return default
        try:
            return int(text)
        except ValueError:
            raise RequestError(
                f"{name} is {text[:40]!r}, expected a whole number", param=name
            ) from None


def read_params(fields: FormFields, served: Served, agent: str) -> TranscriptionParams:
    """Return what a request asks for; `agent` is what its client calls itself.

    Raises RequestError.
    """
    _refuse_other_files(fields)
    check_model(fields.text("model"), served.names)
    if fields.flag("diarize"):
        raise RequestError(
            "diarize is true, but speakers are not told apart", param="diarize"
        )
    include = fields.texts("include")
    if not set(include) <= {"logprobs"}:
        raise RequestError("include has but one value, logprobs", param="include")
    name = fields.text("response_format") or "json"
    if name not in RESPONSES:
        raise RequestError(
            f"response_format {name[:40]!r} is unknown, expected one of "
            f"{', '.join(RESPONSES)}",
            param="response_format",
        )
    granularities = set(fields.texts("timestamp_granularities"))
    if not granularities <= {"word", "segment"}:
        raise RequestError(
            "timestamp_granularities are word and segment",
            param="timestamp_granularities",
        )
    options = replace(
        served.options,
        delay_ms=fields.whole("delay_ms", served.options.delay_ms),
        hotwords=(*fields.texts("keywords"), *fields.texts("context_bias")),
        confidence=bool(include),
    )
    checked_options(options)
    return TranscriptionParams(
        options,
        name,
        is_stream=fields.flag("stream"),
        granularities=frozenset(granularities),
        is_mistral=agent.startswith(_MISTRAL_AGENT)
        or any(name in fields for name in _MISTRAL_FIELDS),
        model=served.model,
        n_prompt=served.prompt_tokens(options.delay_ms),
        channel=_channel(fields),
    )


def _channel(fields: FormFields) -> Channel:
    """Return what is heard of a file with several channels."""
    text = fields.text("channel")
    if text is None or text == "mix":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise RequestError(
            f"channel is {text[:40]!r}, expected a number from 1, or mix; to split "
            "channels, use voxmlx transcribe --channel split",
            param="channel",
        )
    return int(text)


def _refuse_other_files(fields: FormFields) -> None:
    """Refuse a file that is not in the request itself.

    A server that fetches addresses for its clients lets them reach what only it can:
    other services of its machine and of its network.
    """
    if fields.has("file_url"):
        raise RequestError(
            "file_url is not fetched: it would let clients reach the server's own "
            "network; download it, and send the sound in `file`",
            code="unsupported",
            param="file_url",
        )
    if fields.has("file_id"):
        raise RequestError(
            "file_id is unknown: this server keeps no files; send the sound in `file`",
            code="unsupported",
            param="file_id",
        )
