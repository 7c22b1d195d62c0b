"""Events of a stream -> server-sent events, in OpenAI's and in Mistral's words."""

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from voxmlx.errors import RequestError
from voxmlx.events import Event, SoundWarning, TextDelta, UtteranceEnd, WordFinal
from voxmlx.serve.response_formats import (
    Answer,
    TranscriptionParams,
    error_object,
    mistral_segment,
    usage,
)
from voxmlx.text.transcript import Segmenter

__all__ = ["server_sent_events"]


async def server_sent_events(
    events: AsyncIterator[Event], params: TranscriptionParams
) -> AsyncIterator[bytes]:
    """The text as it comes, then whole; or why there is no more of it."""
    told = _mistral(events, params) if params.is_mistral else _openai(events, params)
    try:
        async for message in told:
            yield _sse(message, has_name=params.is_mistral)
    except RequestError as error:
        message = {"type": "error", "error": error_object(error)}
        yield _sse(message, has_name=params.is_mistral)


async def _openai(
    events: AsyncIterator[Event], params: TranscriptionParams
) -> AsyncIterator[dict[str, Any]]:
    answer = Answer(params)
    async for event in events:
        logprobs = answer.feed(event)
        match event:
            case TextDelta(text):
                delta: dict[str, Any] = {"type": "transcript.text.delta"}
                delta["delta"] = text
                if params.options.confidence:
                    delta["logprobs"] = logprobs
                yield delta
            case SoundWarning():
                yield {"type": "transcript.warning"} | asdict(event)
            case _:
                pass
    whole = {"type": "transcript.text.done", "text": answer.text, **answer.logprobs()}
    n_tokens = answer.n_tokens
    yield whole | {
        "usage": {
            "type": "tokens",
            "input_tokens": n_tokens,
            "output_tokens": n_tokens,
            "total_tokens": 2 * n_tokens,
        }
    }


async def _mistral(
    events: AsyncIterator[Event], params: TranscriptionParams
) -> AsyncIterator[dict[str, Any]]:
    answer = Answer(params)
    segmenter = Segmenter()
    is_by_word = "word" in params.granularities
    async for event in events:
        answer.feed(event)
        ended: list[Any] = []
        match event:
            case TextDelta(text):
                yield {"type": "transcription.text.delta", "text": text}
            case WordFinal(word):
                ended = [word] if is_by_word else segmenter.push(word)
            case UtteranceEnd():
                ended = segmenter.flush()
            case _:
                pass
        if params.granularities:
            for segment in ended:
                yield mistral_segment(segment, "transcription.segment")
    if params.granularities:
        for segment in segmenter.flush():
            yield mistral_segment(segment, "transcription.segment")
    transcript = answer.transcript
    yield {
        "type": "transcription.done",
        "model": params.model,
        "text": answer.text,
        "language": None,
        "segments": answer.segments(),
        "usage": usage(transcript, params, answer.n_tokens),
    }


def _sse(message: dict[str, Any], *, has_name: bool) -> bytes:
    name = f"event: {message['type']}\n" if has_name else ""
    return f"{name}data: {json.dumps(message)}\n\n".encode()
