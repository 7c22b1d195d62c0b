"""Clients as developers have them: official packages, and voice agents' services.

The sequences of messages are those of Pipecat's and LiveKit's speech-to-text services
for OpenAI and Mistral, written down from reading their public sources. All of them treat
an error as the end, so none may come.
"""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from mistralai.client import models
from mistralai.client.errors import SDKError
from mistralai.client.models import AudioFormat
from mistralai.client.sdk import Mistral
from mistralai.extra.realtime import RealtimeTranscription
from websockets.asyncio.client import ClientConnection, connect

from tests.serve.loopback import PATIENCE_S, Loopback, pcm16
from tests.serve.test_clients import at_24_khz
from voxmlx import Checkpoint, Session
from voxmlx.events import Event, TextDelta

COMPLETED = "conversation.item.input_audio_transcription.completed"
DELTA = "conversation.item.input_audio_transcription.delta"
FIRST, SECOND = slice(3 * 16_000), slice(3 * 16_000, 5 * 16_000)  # between pauses

# openai opens websockets in a way that websockets 17 would rather not have.
IGNORE = "ignore:connect.. must be used:DeprecationWarning"


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, PATIENCE_S))


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.fixture(scope="module")
def halves(sample: np.ndarray) -> list[np.ndarray]:
    """Two utterances, exact in 16 bits."""
    exact = np.round(sample * 32768) / 32768
    return [exact[FIRST].astype(np.float32), exact[SECOND].astype(np.float32)]


@pytest.fixture(scope="module")
def utterances(demo_checkpoint: Checkpoint, halves: list[np.ndarray]) -> list[str]:
    """What a session says of each when it is flushed after it."""
    session = Session(demo_checkpoint)
    return [text(session.push(half) + session.flush()) for half in halves]


@pytest.fixture(scope="module")
def wav(halves: list[np.ndarray]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, halves[0], 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def async_openai(server: Loopback) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{server.http}/v1", api_key="none", max_retries=0, timeout=PATIENCE_S
    )


def mistral(server: Loopback) -> Mistral:
    return Mistral(api_key="none", server_url=server.http, timeout_ms=120_000)


def words(spoken: str) -> list[str]:
    return spoken.split()


def in_pieces(samples: np.ndarray, piece_ms: int, rate: int) -> list[bytes]:
    content = pcm16(at_24_khz(samples) if rate == 24_000 else samples)
    n = 2 * rate * piece_ms // 1000
    return [content[start : start + n] for start in range(0, len(content), n)]


# ------------------------------------------------------------- openai


def test_openais_async_package_transcribes_a_file(
    server: Loopback, wav: bytes, utterances: list[str]
) -> None:
    async def transcribed() -> tuple[Any, list[Any], list[str]]:
        async with async_openai(server) as client:
            whole = await client.audio.transcriptions.create(
                file=("a.wav", wav), model="demo", include=["logprobs"]
            )
            stream = await client.audio.transcriptions.create(
                file=("a.wav", wav), model="demo", stream=True
            )
            events = [event async for event in stream]
            listed = [model.id async for model in client.models.list()]
            return whole, events, listed

    whole, events, listed = run(transcribed())
    assert words(whole.text) == words(utterances[0])
    assert "".join(entry.token for entry in whole.logprobs).split() == words(whole.text)
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == whole.text
    assert listed == ["demo"]


OPENAI_SESSION: Any = {
    "type": "transcription",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "transcription": {"model": "demo"},
            "turn_detection": None,
        }
    },
}


@pytest.mark.filterwarnings(IGNORE)
def test_openais_async_package_hears_two_utterances_completed(
    server: Loopback, halves: list[np.ndarray], utterances: list[str]
) -> None:
    async def conversed() -> list[str]:
        done: list[str] = []
        async with (
            async_openai(server) as client,
            client.realtime.connect(
                model="demo", extra_query={"intent": "transcription"}
            ) as connection,
        ):
            await connection.session.update(session=OPENAI_SESSION)
            for half in halves:
                for piece in in_pieces(half, 200, 24_000):
                    audio = base64.b64encode(piece).decode()
                    await connection.input_audio_buffer.append(audio=audio)
                await connection.input_audio_buffer.commit()
                async for event in connection:
                    assert event.type != "error", event
                    if event.type == COMPLETED:
                        done.append(event.transcript)
                        break
        return done

    assert [words(one) for one in run(conversed())] == [words(u) for u in utterances]


@pytest.mark.filterwarnings(IGNORE)
def test_openais_sync_package_hears_two_utterances_completed(
    server: Loopback, halves: list[np.ndarray], utterances: list[str]
) -> None:
    done: list[str] = []
    with (
        openai.OpenAI(base_url=f"{server.http}/v1", api_key="none") as client,
        client.realtime.connect(
            model="demo", extra_query={"intent": "transcription"}
        ) as connection,
    ):
        connection.session.update(session=OPENAI_SESSION)
        for half in halves:
            for piece in in_pieces(half, 200, 24_000):
                audio = base64.b64encode(piece).decode()
                connection.input_audio_buffer.append(audio=audio)
            connection.input_audio_buffer.commit()
        for event in connection:  # both at once: they are answered in order
            assert event.type != "error", event
            if event.type == COMPLETED:
                done.append(event.transcript)
                if len(done) == 2:
                    break
    assert [words(one) for one in done] == [words(u) for u in utterances]


# ------------------------------------------------------------ mistral


def test_mistrals_async_package_transcribes_a_file(
    server: Loopback, wav: bytes, utterances: list[str]
) -> None:
    file: models.FileTypedDict = {"file_name": "a.wav", "content": wav}

    async def transcribed() -> tuple[Any, list[Any], Any]:
        async with mistral(server) as client:
            # As LiveKit asks where it may not name a language.
            whole = await client.audio.transcriptions.complete_async(
                model="demo", file=file, timestamp_granularities=["segment"]
            )
            stream = await client.audio.transcriptions.stream_async(
                model="demo", file=file, language="en"
            )
            async with stream as events:
                told = [event.data async for event in events]
            return whole, told, await client.models.list_async()

    whole, told, listed = run(transcribed())
    assert words(whole.text) == words(utterances[0])
    assert whole.segments[0].start <= whole.segments[-1].end <= 3.0
    assert words(" ".join(segment.text for segment in whole.segments)) == words(
        whole.text
    )
    assert not [data for data in told if "Unknown" in type(data).__name__]
    assert isinstance(told[-1], models.TranscriptionStreamDone)
    assert words(told[-1].text) == words(whole.text)
    assert [card.id for card in listed.data] == ["demo"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"file_url": "http://127.0.0.1:9/a.wav"}, "file_url is not fetched"),
        (
            {"file_url": "http://169.254.169.254/" + "x" * 300},
            "file_url is not fetched",
        ),
        ({"file_id": "7e3a"}, "file_id is unknown"),
        ({"diarize": True}, "speakers are not told apart"),
    ],
)
def test_mistrals_package_is_told_in_a_line_what_is_not_done(
    server: Loopback, wav: bytes, asked: Any, why: str
) -> None:
    file: Any = (
        {} if "diarize" not in asked else {"file": {"file_name": "a", "content": wav}}
    )
    with mistral(server) as client, pytest.raises(SDKError, match=why) as caught:
        client.audio.transcriptions.complete(model="demo", **file, **asked)
    assert caught.value.status_code == 400
    message = json.loads(caught.value.body)["error"]["message"]
    assert "\n" not in message


def test_mistrals_package_transcribes_a_stream_of_its_own(
    server: Loopback, halves: list[np.ndarray], utterances: list[str]
) -> None:
    """`transcribe_stream` flushes, ends, and stops at the first `done`."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in in_pieces(halves[0], 100, 16_000):
            yield piece

    async def transcribed() -> list[Any]:
        async with mistral(server) as client:
            stream = client.audio.realtime.transcribe_stream(pieces(), model="demo")
            return [event async for event in stream]

    events = run(transcribed())
    assert isinstance(events[-1], models.TranscriptionStreamDone)
    assert events[-1].text == utterances[0]


# ------------------------------------------------------------ Pipecat


async def tell(websocket: ClientConnection, kind: str, **fields: Any) -> None:
    await websocket.send(json.dumps({"type": kind, **fields}))


async def heard(websocket: ClientConnection, last: str) -> list[dict[str, Any]]:
    """Messages up to the first of type `last`; an error is the end for all agents."""
    told: list[dict[str, Any]] = []
    while not told or told[-1]["type"] != last:
        told.append(json.loads(await websocket.recv()))
        assert told[-1]["type"] != "error", told[-1]
    return told


async def append(
    websocket: ClientConnection, samples: np.ndarray, piece_ms: int
) -> None:
    for piece in in_pieces(samples, piece_ms, 24_000):
        audio = base64.b64encode(piece).decode()
        await tell(websocket, "input_audio_buffer.append", audio=audio)


def pipecat_session(**more: Any) -> dict[str, Any]:
    about = {
        "format": {"type": "audio/pcm", "rate": 24_000},
        "transcription": {"model": "gpt-realtime-whisper", "language": "en"},
        **more,
    }
    return {"type": "transcription", "audio": {"input": about}}


def test_pipecats_openai_service_hears_what_it_commits(
    server: Loopback, halves: list[np.ndarray], utterances: list[str]
) -> None:
    """It detects speech itself: it waits for the session, and commits at each pause."""

    async def conversed() -> list[str]:
        url = f"{server.ws}/v1/realtime?intent=transcription"
        headers = {"Authorization": "Bearer none"}
        done: list[str] = []
        async with connect(url, additional_headers=headers) as websocket:
            await heard(websocket, "session.created")
            noise = {"type": "near_field"}
            session = pipecat_session(turn_detection=None, noise_reduction=noise)
            await tell(websocket, "session.update", session=session)
            await heard(websocket, "session.updated")
            for half in halves:
                await append(websocket, half, 20)
                await tell(websocket, "input_audio_buffer.commit")
                told = await heard(websocket, COMPLETED)
                deltas = "".join(m["delta"] for m in told if m["type"] == DELTA)
                assert words(deltas) == words(told[-1]["transcript"])
                done.append(told[-1]["transcript"])
            # It sends the session again, whole, when its settings change.
            await tell(websocket, "session.update", session=session)
            await heard(websocket, "session.updated")
        return done

    assert [words(one) for one in run(conversed())] == [words(u) for u in utterances]


@pytest.mark.parametrize(
    "turns", [{}, {"turn_detection": {"type": "server_vad", "threshold": 0.5}}], ids=str
)
def test_pipecats_openai_service_hears_turns_that_the_server_detects(
    server: Loopback, halves: list[np.ndarray], utterances: list[str], turns: Any
) -> None:
    async def conversed() -> list[dict[str, Any]]:
        url = f"{server.ws}/v1/realtime?intent=transcription"
        async with connect(url) as websocket:
            await heard(websocket, "session.created")
            await tell(websocket, "session.update", session=pipecat_session(**turns))
            silence = np.zeros(2 * 16_000, np.float32)
            await append(websocket, np.append(halves[0], silence), 20)
            told: list[dict[str, Any]] = []
            n_words = 0
            while n_words < len(words(utterances[0])):
                told += await heard(websocket, COMPLETED)
                n_words += len(words(told[-1]["transcript"]))
            return told

    told = [m for m in run(conversed()) if "session" not in m["type"]]
    kinds = [message["type"].rpartition(".")[2] for message in told]
    assert kinds[0] == "speech_started"
    assert kinds.count("speech_started") == kinds.count("speech_stopped")
    done = " ".join(m["transcript"] for m in told if m["type"] == COMPLETED)
    assert words(done) == words(utterances[0])


def test_pipecats_mistral_service_hears_a_done_at_each_pause(
    server: Loopback, halves: list[np.ndarray], utterances: list[str]
) -> None:
    async def conversed() -> tuple[list[str], list[str], list[Any]]:
        async with mistral(server) as client:
            connection = await client.audio.realtime.connect(
                model="demo",
                audio_format=AudioFormat(encoding="pcm_s16le", sample_rate=16_000),
                target_streaming_delay_ms=None,
            )
            interim, final, others = "", [""], []
            final.clear()
            shown: list[str] = []
            todo = list(halves)

            async def speak() -> None:
                for piece in in_pieces(todo.pop(0), 20, 16_000):
                    await connection.send_audio(piece)
                await connection.flush_audio()

            await speak()
            async for event in connection.events():
                match event:
                    case models.TranscriptionStreamTextDelta(text=delta):
                        interim += delta
                    case models.TranscriptionStreamDone(text=whole):
                        final.append(whole)
                        shown.append(interim)
                        interim = ""
                        if not todo:
                            break
                        await speak()
                    case _:
                        others.append(event)
            await connection.close()
            return final, shown, others

    final, shown, others = run(conversed())
    assert final == shown == utterances
    assert {type(event).__name__ for event in others} <= {
        "RealtimeTranscriptionSessionCreated",
        "RealtimeTranscriptionSessionUpdated",
        "UnknownRealtimeEvent",  # session.lag, if it was sent faster than decoded
    }


# ------------------------------------------------------------ LiveKit


LIVEKIT_TURNS = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 600,
    "silence_duration_ms": 350,
}


def livekit_session(**transcription: Any) -> dict[str, Any]:
    session = pipecat_session(turn_detection=LIVEKIT_TURNS)
    session["audio"]["input"]["transcription"] = {
        "model": "gpt-transcribe",
        **transcription,
    }
    return session


def test_livekits_openai_service_changes_key_terms_while_it_speaks(
    server: Loopback, halves: list[np.ndarray], utterances: list[str]
) -> None:
    """It waits for nothing before its session, and changes that in place."""

    async def conversed() -> str:
        url = f"{server.ws}/v1/realtime?intent=transcription&model=gpt-transcribe"
        headers = {"User-Agent": "LiveKit Agents", "Authorization": "Bearer none"}
        done: list[str] = []
        wanted = len(words(" ".join(utterances)))
        async with connect(url, additional_headers=headers) as websocket:
            session = livekit_session(prompt="", keywords=[], languages=["en", "de"])
            await tell(websocket, "session.update", session=session)
            await append(websocket, halves[0], 50)
            session = livekit_session(keywords=["heating"], languages=["en"])
            await tell(websocket, "session.update", session=session)
            silence = np.zeros(2 * 16_000, np.float32)
            await append(websocket, np.concatenate([halves[1], silence]), 50)
            while len(words(" ".join(done))) < wanted:
                done.append((await heard(websocket, COMPLETED))[-1]["transcript"])
        return " ".join(done)

    done = words(run(conversed()))
    assert len(done) == len(words(" ".join(utterances)))
    assert done[:3] == words(utterances[0])[:3]


def test_livekits_openai_service_commits_for_models_without_turns(
    server: Loopback, halves: list[np.ndarray], utterances: list[str]
) -> None:
    """It leaves `turn_detection` out, and its own detector commits."""

    async def conversed() -> list[str]:
        url = f"{server.ws}/v1/realtime?intent=transcription&model=gpt-realtime-whisper"
        done: list[str] = []
        async with connect(url) as websocket:
            session = livekit_session(language="en")
            del session["audio"]["input"]["turn_detection"]
            await tell(websocket, "session.update", session=session)
            silence = np.zeros(9600, np.float32)
            for half in halves:
                await append(websocket, np.append(half, silence), 50)
                await tell(websocket, "input_audio_buffer.commit")
            wanted = len(words(" ".join(utterances)))
            while len(words(" ".join(done))) < wanted:
                done.append((await heard(websocket, COMPLETED))[-1]["transcript"])
        return words(" ".join(done))

    assert run(conversed()) == words(" ".join(utterances))


def test_livekits_older_openai_service_uses_the_beta_names(
    server: Loopback, halves: list[np.ndarray], utterances: list[str]
) -> None:
    async def conversed() -> list[str]:
        url = f"{server.ws}/v1/realtime?intent=transcription"
        headers = {"User-Agent": "LiveKit Agents", "OpenAI-Beta": "realtime=v1"}
        about = {"model": "gpt-4o-mini-transcribe", "prompt": "", "language": ""}
        session = {
            "input_audio_format": "pcm16",
            "input_audio_transcription": about,
            "turn_detection": LIVEKIT_TURNS,
        }
        async with connect(url, additional_headers=headers) as websocket:
            await tell(websocket, "transcription_session.update", session=session)
            silence = np.zeros(2 * 16_000, np.float32)
            await append(websocket, np.append(halves[0], silence), 50)
            done: list[str] = []
            while len(words(" ".join(done))) < len(words(utterances[0])):
                done.append((await heard(websocket, COMPLETED))[-1]["transcript"])
        return words(" ".join(done))

    assert run(conversed()) == words(utterances[0])


def test_livekits_mistral_service_keeps_its_connection_over_turns(
    server: Loopback, halves: list[np.ndarray], utterances: list[str]
) -> None:
    """Each turn is flushed, twice at its end; the sound is ended only at the close."""

    async def speak(connection: Any, samples: np.ndarray) -> None:
        for piece in in_pieces(samples, 100, 16_000):
            await connection.send_audio(piece)
        for _ in range(2):  # at the pause, and when the stream of the agent ends
            await connection.flush_audio()

    async def conversed() -> list[str]:
        async with mistral(server) as client:
            realtime = RealtimeTranscription(client.sdk_configuration)
            connection = await realtime.connect(
                model="demo",
                audio_format=AudioFormat(encoding="pcm_s16le", sample_rate=16_000),
            )
            assert connection.request_id
            done: list[str] = []
            await speak(connection, halves[0])
            async for event in connection:
                assert not isinstance(event, models.RealtimeTranscriptionError), event
                if isinstance(event, models.TranscriptionStreamDone):
                    done.append(event.text)
                    if len(done) == 2:
                        await speak(connection, halves[1])
                    if len(done) == 4:
                        await connection.end_audio()
                    if len(done) == 5:
                        break
            await connection.close()
            return done

    first, second = utterances
    assert run(conversed()) == [first, "", second, "", ""]
