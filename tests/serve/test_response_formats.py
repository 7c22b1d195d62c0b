"""Answers to uploads, read by the packages of OpenAI and Mistral."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import openai.types.audio
import pytest
import soundfile
from mistralai.client import models
from mistralai.client.sdk import Mistral

from tests.serve.loopback import PATIENCE_S, Loopback, serving
from tests.serve.scripts import served
from tests.sounds import speech_like
from voxmlx import Checkpoint
from voxmlx.errors import RequestError
from voxmlx.events import (
    Event,
    Finished,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.serve.event_streams import server_sent_events
from voxmlx.serve.response_formats import RESPONSES, TranscriptionParams
from voxmlx.serve.upload_fields import FormFields, read_params

EVENTS: list[Event] = [
    TokenDecoded(1000, 0, 80, -0.5),
    TextDelta(" one", 80),
    WordFinal(Word("one", 0, 80, 0.5), 400),
    UtteranceEnd(0, 80, 900),
    TokenDecoded(1001, 1, 1000, -0.25),
    TextDelta(" two", 1000),
    WordFinal(Word("two", 920, 1000, 0.75), 1400),
    Finished(2500, 2),
]
SEGMENTS = [("one", 0.0, 0.08), ("two", 0.92, 1.0)]


async def stream(failure: RequestError | None = None) -> AsyncIterator[Event]:
    for event in EVENTS:
        yield event
    if failure is not None:
        raise failure


def params(fields: dict[str, list[str]], agent: str = "curl/8") -> TranscriptionParams:
    return read_params(FormFields(fields), served(), agent)


def answered(fields: dict[str, list[str]]) -> dict[str, Any]:
    asked = params(fields)
    response = asyncio.run(RESPONSES[asked.name](stream(), asked))  # pyright: ignore[reportArgumentType] -- a coroutine
    return json.loads(bytes(response.body))


def streamed(
    asked: TranscriptionParams, failure: RequestError | None = None
) -> list[tuple[str, dict[str, Any]]]:
    """Pairs of an event's name, empty where it has none, and its data."""

    async def collected() -> str:
        events = server_sent_events(stream(failure), asked)
        return b"".join([piece async for piece in events]).decode()

    told: list[tuple[str, dict[str, Any]]] = []
    for block in asyncio.run(collected()).strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        told.append((lines.get("event", ""), json.loads(lines["data"])))
    return told


@pytest.mark.parametrize("granularity", ["segment", "word"])
def test_mistrals_package_reads_the_answer(granularity: str) -> None:
    content = answered({"timestamp_granularities": [granularity], "language": ["de"]})
    answer = models.TranscriptionResponse.model_validate(content)
    assert (answer.model, answer.text, answer.language) == ("demo", "one two", None)
    assert answer.segments is not None
    assert [(s.text, s.start, s.end) for s in answer.segments] == SEGMENTS
    assert answer.usage.prompt_audio_seconds == 2
    assert answer.usage.completion_tokens == 2
    assert answer.usage.total_tokens == 41
    assert openai.types.audio.Transcription.model_validate(content).text == "one two"


def test_segments_come_only_if_they_were_asked_for() -> None:
    assert answered({})["segments"] == []


@pytest.mark.parametrize("granularity", [None, "segment", "word"])
def test_mistrals_package_reads_each_event_of_a_stream(granularity: str | None) -> None:
    fields = {"timestamp_granularities": [granularity]} if granularity else {}
    told = streamed(params(fields, "mistral-client-python/3.7.0"))
    for name, message in told:
        event = models.TranscriptionStreamEvents.model_validate(
            {"event": name, "data": message}
        )
        assert event.event == event.data.type == message["type"]
    deltas = [m["text"] for name, m in told if name == "transcription.text.delta"]
    assert deltas == [" one", " two"]
    segments = [m for name, m in told if name == "transcription.segment"]
    found = [(m["text"], m["start"], m["end"]) for m in segments]
    assert found == (SEGMENTS if granularity else [])
    name, done = told[-1]
    assert name == "transcription.done"
    assert (done["text"], done["language"]) == ("one two", None)
    assert len(done["segments"]) == len(found)


@pytest.mark.parametrize("field", ["context_bias", "diarize"])
def test_a_client_is_mistrals_by_its_fields_too(field: str) -> None:
    assert params({field: ["false"]}).is_mistral
    assert not params({"model": ["whisper-1"], "language": ["en"]}).is_mistral


def test_a_stream_that_fails_names_its_error() -> None:
    failure = RequestError("no sound", code="invalid_audio")
    told = streamed(params({"diarize": ["false"]}), failure)
    assert told[-1][0] == "error"
    assert told[-1][1]["error"]["code"] == "invalid_audio"
    assert not any(name == "transcription.done" for name, _ in told)


def test_openais_stream_is_as_it_was() -> None:
    told = streamed(params({}))
    assert {name for name, _ in told} == {""}
    assert [m["type"] for _, m in told] == [
        "transcript.text.delta",
        "transcript.text.delta",
        "transcript.text.done",
    ]
    assert "logprobs" not in json.dumps(told)


def test_log_probabilities_of_a_file_are_answered() -> None:
    fields = {"include[]": ["logprobs"]}
    assert params(fields).options.confidence
    entries = [
        {"token": " one", "bytes": [32, 111, 110, 101], "logprob": -0.5},
        {"token": " two", "bytes": [32, 116, 119, 111], "logprob": -0.25},
    ]
    content = answered(fields)
    assert content["logprobs"] == entries
    assert openai.types.audio.Transcription.model_validate(content).logprobs
    told = [message for _, message in streamed(params(fields))]
    assert [m.get("logprobs") for m in told] == [[entries[0]], [entries[1]], entries]
    with pytest.raises(RequestError, match="logprobs"):
        params({"include[]": ["everything"]})


def test_a_language_that_a_client_names_is_not_one_that_was_detected() -> None:
    content = answered({"response_format": ["verbose_json"], "language": ["tlh"]})
    assert content["language"] == "unknown"
    assert "tlh" not in json.dumps(content)


def test_words_of_a_file_have_their_confidence() -> None:
    content = answered({"response_format": ["verbose_json"]})
    assert [word["confidence"] for word in content["words"]] == [0.5, 0.75]


def test_a_long_prompt_of_a_client_of_openais_is_no_error() -> None:
    assert params({"prompt": ["word " * 200]}).options == served().options
    with pytest.raises(RequestError, match="256 characters"):
        params({"context_bias": ["x" * 257]})


def test_hot_words_have_mistrals_name_and_ours() -> None:
    asked = params({"keywords[]": ["a"], "context_bias": ["b", "c"]})
    assert asked.options == replace(served().options, hotwords=("a", "b", "c"))
    with pytest.raises(RequestError, match="speakers"):
        params({"diarize": ["true"]})


# ------------------------------------------------ the package and a server


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Checkpoint) -> Iterator[Loopback]:
    with serving(tiny_checkpoint) as server:
        yield server


@pytest.fixture(scope="module")
def file() -> models.FileTypedDict:
    content = io.BytesIO()
    soundfile.write(content, speech_like(20_000, seed=4), 16_000, format="WAV")
    return {"file_name": "a.wav", "content": content.getvalue()}


def test_mistrals_package_lists_the_model(tiny: Loopback) -> None:
    with Mistral(api_key="none", server_url=tiny.http) as client:
        listed = client.models.list()
        (card,) = listed.data or []
        assert isinstance(card, models.BaseModelCard)
        assert card.capabilities.audio_transcription
        assert card.capabilities.audio_transcription_realtime
        assert client.models.retrieve(model_id=card.id).type == "base"


def test_mistrals_package_transcribes_a_file(
    tiny: Loopback, file: models.FileTypedDict
) -> None:
    with (
        Mistral(api_key="none", server_url=tiny.http) as client,
        httpx.Client(base_url=tiny.http, timeout=PATIENCE_S) as plain,
    ):
        sound: Any = {"file": ("a.wav", file["content"])}
        text = plain.post("/v1/audio/transcriptions", files=sound).json()["text"]
        whole = client.audio.transcriptions.complete(model="demo", file=file)
        assert whole.text == text
        assert whole.language is None
        with client.audio.transcriptions.stream(model="demo", file=file) as events:
            told = [event.data for event in events]
    assert [
        type(data).__name__ for data in told if "Unknown" in type(data).__name__
    ] == []
    assert isinstance(told[-1], models.TranscriptionStreamDone)
    assert told[-1].text.split() == text.split()


def test_log_probabilities_are_the_sessions(
    tiny: Loopback, file: models.FileTypedDict
) -> None:
    with httpx.Client(base_url=tiny.http, timeout=PATIENCE_S) as client:
        sound: Any = {"file": ("a.wav", file["content"])}
        form = {"include[]": "logprobs"}
        answer = client.post("/v1/audio/transcriptions", files=sound, data=form).json()
    assert (
        "".join(entry["token"] for entry in answer["logprobs"]).strip()
        == answer["text"]
    )
    assert np.all(np.array([entry["logprob"] for entry in answer["logprobs"]]) < 0)
