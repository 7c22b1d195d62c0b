"""Clients that people already have transcribe the demo's sample over loopback."""

import asyncio
import base64
import io
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
import websockets.sync.client
from mistralai.client.models import AudioFormat
from mistralai.client.sdk import Mistral
from mistralai.extra.realtime import RealtimeTranscription

from tests.serve.loopback import PATIENCE_S, Loopback, pcm16, said, sound
from voxmlx import demo
from voxmlx.audio.resample import Resampler


def openai_client(server: Loopback) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{server.http}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S
    )


def at_24_khz(samples: np.ndarray) -> np.ndarray:
    """Band-limited: zeros between samples, and a long low-pass of our own."""
    n_taps = 129
    k = np.arange(n_taps) - n_taps // 2
    low_pass = np.sinc(k / 3) * np.hamming(n_taps)
    spread = np.zeros(3 * len(samples))
    spread[::3] = samples
    return np.convolve(spread, low_pass, "same")[::2]


def test_our_24_khz_sound_is_sound() -> None:
    tone = np.sin(2 * math.pi * 440 * np.arange(16_000) / 16_000) / 2
    back = Resampler(24_000)
    again = back.push(at_24_khz(tone).astype(np.float32))
    n = len(again) - 200
    assert np.abs(again[200:n] - tone[200:n]).max() < 0.01


# -------------------------------------------------------------- openai


def test_openai_transcribes_the_sample(server: Loopback, sample_text: str) -> None:
    with openai_client(server) as client, open(demo.SAMPLE, "rb") as file:
        answer = client.audio.transcriptions.create(file=file, model="demo")
    assert answer.text == sample_text


@pytest.fixture(scope="module")
def start_wav(sample: np.ndarray) -> bytes:
    """The sample's first five seconds."""
    file = io.BytesIO()
    soundfile.write(file, sample[: 5 * 16_000], 16_000, format="WAV")
    return file.getvalue()


@pytest.mark.parametrize("name", ["json", "text", "verbose_json", "srt", "vtt"])
def test_openai_has_its_format(
    server: Loopback, start_wav: bytes, start_text: str, name: Any
) -> None:
    with openai_client(server) as client:
        answer: Any = client.audio.transcriptions.create(
            file=("start.wav", start_wav),
            model="demo",
            response_format=name,
            timestamp_granularities=["word", "segment"],
        )
    if name == "text":
        assert answer.strip() == start_text
    elif name in ("srt", "vtt"):
        lines = [line for line in answer.splitlines() if "-->" not in line]
        words = " ".join(line for line in lines if not line.isdigit()).split()
        assert [word for word in words if word != "WEBVTT"] == start_text.split()
    else:
        assert answer.text == start_text
    if name == "verbose_json":
        assert [word.word for word in answer.words] == start_text.split()
        assert all(word.start <= word.end for word in answer.words)
        assert " ".join(s.text.strip() for s in answer.segments) == start_text
        assert answer.duration == pytest.approx(5.0)


def test_openai_hears_a_files_text_as_it_comes(
    server: Loopback, start_wav: bytes, start_text: str
) -> None:
    with openai_client(server) as client:
        events: Any = list(
            client.audio.transcriptions.create(
                file=("start.wav", start_wav), model="demo", stream=True
            )
        )
    assert "".join(e.delta for e in events[:-1]).strip() == start_text
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == start_text
    assert len(events) > 5


def test_openai_reads_our_errors(server: Loopback) -> None:
    with (
        openai_client(server) as client,
        pytest.raises(openai.BadRequestError, match=r"noise\.wav") as caught,
    ):
        client.audio.transcriptions.create(
            file=("noise.wav", b"RIFF no sound"), model="demo"
        )
    assert caught.value.code == "invalid_audio"
    assert caught.value.param == "file"


def test_openai_lists_the_model(server: Loopback) -> None:
    with openai_client(server) as client:
        assert [model.id for model in client.models.list()] == ["demo"]
        assert client.models.retrieve("demo").id == "demo"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt")


GA_SESSION: dict[str, Any] = {
    "type": "transcription",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "transcription": {"model": "demo", "language": "en"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
        }
    },
}


# openai 3 opens websockets in a way that websockets 17 would rather not have.
@pytest.mark.filterwarnings("ignore:connect.. must be used:DeprecationWarning")
@pytest.mark.parametrize("has_intent", [True, False])
def test_openai_transcribes_in_real_time(
    server: Loopback, sample: np.ndarray, sample_text: str, has_intent: bool
) -> None:
    payload = pcm16(np.append(at_24_khz(sample), np.zeros(48_000)))
    turns: list[str] = []
    deltas = ""
    query: dict[str, object] = {"intent": "transcription"} if has_intent else {}
    wanted = len(sample_text.split())
    with (
        openai_client(server) as client,
        client.realtime.connect(model="demo", extra_query=query) as connection,
    ):
        session: Any = GA_SESSION
        connection.session.update(session=session)
        for start in range(0, len(payload), 9600):
            piece = base64.b64encode(payload[start : start + 9600]).decode()
            connection.input_audio_buffer.append(audio=piece)
        for event in connection:
            assert event.type != "error", event
            if event.type == "conversation.item.input_audio_transcription.delta":
                deltas += event.delta or ""
            if event.type == "conversation.item.input_audio_transcription.completed":
                turns.append(event.transcript)
                if sum(len(turn.split()) for turn in turns) >= wanted:
                    break
    assert " ".join(turns) == sample_text
    assert deltas.split() == sample_text.split()
    assert len(turns) > 3


def test_the_beta_names_of_openai_transcribe(
    server: Loopback, sample: np.ndarray, sample_text: str
) -> None:
    payload = pcm16(at_24_khz(sample))
    with websockets.sync.client.connect(
        f"{server.ws}/v1/realtime?intent=transcription",
        additional_headers={"OpenAI-Beta": "realtime=v1"},
    ) as websocket:
        update = {"input_audio_format": "pcm16", "turn_detection": None}
        websocket.send(
            json.dumps({"type": "transcription_session.update", "session": update})
        )
        for start in range(0, len(payload), 9600):
            audio = base64.b64encode(payload[start : start + 9600]).decode()
            websocket.send(
                json.dumps({"type": "input_audio_buffer.append", "audio": audio})
            )
        websocket.send(json.dumps({"type": "input_audio_buffer.commit"}))
        told = said(websocket, "conversation.item.input_audio_transcription.completed")
    assert told[0]["type"] == "transcription_session.created"
    assert told[-1]["transcript"] == sample_text


# ------------------------------------------------------------- mistral


@pytest.mark.parametrize("delay_ms", [None, 960])
def test_mistral_transcribes_in_real_time(
    server: Loopback, sample: np.ndarray, sample_text: str, delay_ms: int | None
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        payload = pcm16(sample)
        for start in range(0, len(payload), 3200):
            yield payload[start : start + 3200]

    async def transcribed() -> list[Any]:
        async with Mistral(api_key="none", server_url=server.http) as client:
            realtime = RealtimeTranscription(client.sdk_configuration)
            stream = realtime.transcribe_stream(
                pieces(),
                model="demo",
                audio_format=AudioFormat(encoding="pcm_s16le", sample_rate=16_000),
                target_streaming_delay_ms=delay_ms,
                server_url=server.ws,
            )
            return [event async for event in stream]

    events = asyncio.run(transcribed())
    kinds = [getattr(event, "type", None) for event in events]
    assert "error" not in kinds
    # Sent faster than it is decoded, sound lags, and we say so.
    unknown = [event for event in events if "Unknown" in type(event).__name__]
    assert {event.type for event in unknown} <= {"session.lag"}
    deltas = [e.text for e in events if e.type == "transcription.text.delta"]
    assert events[-1].type == "transcription.done"
    assert events[-1].text.strip() == sample_text
    assert "".join(deltas) == events[-1].text


def test_mistral_hears_each_flushed_utterance_done(
    server: Loopback, sample: np.ndarray
) -> None:
    """As LiveKit's and Pipecat's services do: a flush at each pause that they hear."""

    async def conversed() -> tuple[list[str], str]:
        async with Mistral(api_key="none", server_url=server.http) as client:
            realtime = RealtimeTranscription(client.sdk_configuration)
            done: list[str] = []
            deltas = ""
            async with await realtime.connect(
                model="demo", server_url=server.ws
            ) as connection:
                halves = iter((sample[: 3 * 16_000], sample[3 * 16_000 : 6 * 16_000]))

                async def speak() -> None:
                    await connection.send_audio(pcm16(next(halves)))
                    await connection.flush_audio()

                await speak()
                async for event in connection:  # which, once left, is closed
                    told: Any = event
                    assert told.type != "error", event
                    if told.type == "transcription.text.delta":
                        deltas += told.text
                    elif told.type == "transcription.done":
                        done.append(told.text)
                        if len(done) == 2:
                            break
                        await speak()
            return done, deltas

    done, deltas = asyncio.run(asyncio.wait_for(conversed(), PATIENCE_S))
    assert len(done) == 2
    assert all(text.strip() for text in done)
    assert "".join(done) == deltas


# ---------------------------------------------------------------- vLLM


def test_a_script_for_vllm_transcribes_in_real_time(
    server: Loopback, sample: np.ndarray, sample_text: str
) -> None:
    """As vLLM's documentation has it: update, commit, sound, commit for good."""
    with websockets.sync.client.connect(f"{server.ws}/v1/realtime") as websocket:
        created = json.loads(websocket.recv(timeout=PATIENCE_S))
        assert created["type"] == "session.created"
        websocket.send(json.dumps({"type": "session.update", "model": "demo"}))
        websocket.send(json.dumps({"type": "input_audio_buffer.commit"}))
        for message in sound(sample, piece=2048):
            websocket.send(message)
        websocket.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
        told = said(websocket, "transcription.done")
    deltas = [m["delta"] for m in told if m["type"] == "transcription.delta"]
    # Sent faster than it is decoded, sound lags, and we say so.
    assert {m["type"] for m in told[:-1]} <= {"transcription.delta", "session.lag"}
    assert "".join(deltas) == told[-1]["text"]
    assert told[-1]["text"].strip() == sample_text
    usage = told[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_client_of_vllms_may_send_nothing_but_sound(
    server: Loopback, sample: np.ndarray, sample_text: str
) -> None:
    with websockets.sync.client.connect(f"{server.ws}/v1/realtime") as websocket:
        for message in sound(sample, piece=16_000):
            websocket.send(message)
        websocket.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
        assert said(websocket, "transcription.done")[-1]["text"].strip() == sample_text
