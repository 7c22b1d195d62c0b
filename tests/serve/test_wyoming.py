"""Wyoming: what its own package sends is heard, and what harms is not."""

import asyncio
import contextlib
import io
import json
import select
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import wyoming.event
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop, wav_to_chunks
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event, async_read_event
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from tests.serve.loopback import IDLE, PATIENCE_S, Loopback, pcm16, said, serving, until
from tests.serve.scripts import WyomingTalk, served
from tests.sounds import speech_like
from voxmlx import Checkpoint
from voxmlx.errors import RequestError
from voxmlx.events import TextDelta
from voxmlx.serve.connection import Connection
from voxmlx.serve.conversation import WyomingConversation
from voxmlx.serve.json_object import JsonObject
from voxmlx.serve.metrics_sink import NullMetrics
from voxmlx.serve.protocol import Close, Finish, Flush, Lagging, Open, PushAudio
from voxmlx.serve.scheduler import Scheduler
from voxmlx.serve.stream_options import MAX_HOTWORDS, StreamOptions
from voxmlx.serve.transports import PartialBytes
from voxmlx.serve.wyoming_wire import EventReader, encode_event
from voxmlx.web.limits import Limits

MONO: dict[str, Any] = {"rate": 16_000, "width": 2, "channels": 1}
START, STOP = {"type": "audio-start", **MONO}, {"type": "audio-stop"}
SOUND = {"type": "audio-chunk", **MONO, "payload": bytes(2 * 1600)}
ENDS = ["transcript-start", "transcript-chunk", "transcript", "transcript-stop"]


def types(told: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in told]


def on_wire(event: Event) -> bytes:
    """As Wyoming's own package writes it."""
    file = io.BytesIO()
    wyoming.event.write_event(event, file)
    return file.getvalue()


# ------------------------------------------------------------- the wire


EVENTS = [
    Describe().event(),
    Transcribe(language="en", context={"a": 1}).event(),
    AudioStart(**MONO).event(),
    AudioChunk(**MONO, audio=bytes(range(256)), timestamp=3).event(),
    AudioChunk(**MONO, audio=b"\n{}\n").event(),
    AudioStop().event(),
    Ping(text="héllo\n").event(),
]


def read_all(reader: EventReader) -> list[tuple[dict[str, Any], bytes]]:
    found: list[tuple[dict[str, Any], bytes]] = []
    while (event := reader.next()) is not None:
        found.append((dict(event.values), event.payload))
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
def test_events_do_not_depend_on_how_their_bytes_were_cut(sizes: list[int]) -> None:
    content = b"".join(map(on_wire, EVENTS))
    expected = [({**e.data, "type": e.type}, e.payload or b"") for e in EVENTS]
    reader = EventReader(10_000)
    found: list[tuple[dict[str, Any], bytes]] = []
    for size in (*sizes, len(content)):
        reader.feed(content[:size])
        content = content[size:]
        found += read_all(reader)
    assert found == expected
    assert not reader.is_inside


def test_data_of_the_line_and_data_after_it_are_one_object() -> None:
    line = b'{"type": "ping", "data": {"text": "a", "x": 1}, "data_length": 13}\n'
    reader = EventReader(1000)
    reader.feed(line + b'{"text": "b"}' + b'{"type": "describe"}\n')
    first, second = read_all(reader)
    assert first[0] == {"type": "ping", "text": "b", "x": 1}
    assert second[0] == {"type": "describe"}


def test_wyomings_package_reads_what_we_write() -> None:
    message = {"type": "transcript", "text": "äh \ud800", "context": {"a": [1]}}
    event = wyoming.event.read_event(io.BytesIO(encode_event(message)))
    assert event is not None
    assert {**event.data, "type": event.type} == message
    stop = wyoming.event.read_event(io.BytesIO(encode_event({"type": "x"})))
    assert stop is not None
    assert stop.data == {}


BROKEN = [
    b"\n",
    b"no json\n",
    b"[]\n",
    b"3\n",
    b"null\n",
    b"{}\n",
    b'{"type": 3}\n',
    b'{"type": null}\n',
    b'{"type": "%s"}\n' % (b"x" * 300),
    b'{"type": "ping", "data": 3}\n',
    b'{"type": "ping", "data": NaN}\n',
    b'{"type": "ping", "data_length": -1}\n',
    b'{"type": "ping", "data_length": "2"}\n{}',
    b'{"type": "ping", "data_length": true}\n{',
    b'{"type": "ping", "data_length": 1.5}\n{}',
    b'{"type": "ping", "data_length": 1e400}\n',
    b'{"type": "ping", "data_length": 2}\n[]',
    b'{"type": "ping", "data_length": 2}\nxx',
    b'{"type": "ping", "data_length": 1000000}\n',
    b'{"type": "ping", "payload_length": 1000000}\n',
    b'{"type": "ping", "payload_length": -5}\n',
    b'{"type": "ping", "payload_length": 1%s}\n' % (b"0" * 5000),
    b"x" * 20_000,
    b"[" * 9_000 + b"\n",
    b"\xff\xfe{\x00}\x00\n",
    b'{"type": "\xff"}\n',
    b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\n",
]


@pytest.mark.parametrize("content", BROKEN)
def test_what_is_no_event_is_an_error_of_one_line(content: bytes) -> None:
    reader = EventReader(10_000)
    reader.feed(content)
    with pytest.raises(RequestError) as caught:
        reader.next()
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------- the dialect


def test_an_utterance_is_told_as_it_is_spoken_and_then_whole() -> None:
    talk = WyomingTalk()
    assert talk.told == []
    assert talk.says({"type": "transcribe", "language": "de"}, START, SOUND) == []
    deltas = talk.hears(TextDelta(" turn", 80), TextDelta(" it", 160))
    assert deltas == [
        {"type": "transcript-start"},
        {"type": "transcript-chunk", "text": "turn"},
        {"type": "transcript-chunk", "text": " it"},
    ]
    last = talk.says(STOP)
    assert types(last) == ["transcript-chunk", "transcript", "transcript-stop"]
    assert last[1] == {"type": "transcript", "text": "turn it end"}
    assert not talk.is_closed
    assert [type(c) for c in talk.commands] == [Open, PushAudio, Finish]


def test_utterances_follow_each_other_on_one_connection() -> None:
    talk = WyomingTalk()
    for i in range(3):
        about: dict[str, Any] = {"type": "transcribe", "context": {"id": i}}
        told = talk.says(about, START, SOUND, SOUND, STOP)
        assert types(told) == ENDS
        assert told[0]["context"] == told[2]["context"] == {"id": i}
        assert told[2]["text"] == "end"
    assert "context" not in talk.says(START, SOUND, STOP)[2], "it was of the last one"


def test_sound_needs_no_start_and_may_change_its_format() -> None:
    talk = WyomingTalk()
    stereo = {"rate": 48_000, "width": 4, "channels": 2}
    talk.says(SOUND, {"type": "audio-chunk", **stereo, "payload": bytes(8 * 4800)})
    talk.says(SOUND, STOP)
    assert abs(talk.n_heard - 3 * 1600) < 10
    assert not talk.is_closed


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_any_format_that_a_client_announces_is_heard(
    rate: int, width: int, channels: int
) -> None:
    talk = WyomingTalk()
    tone = np.sin(np.arange(rate) * 2 * np.pi * 300 / rate) / 2
    whole = np.round(tone * 2 ** (8 * width - 1)) + (128 if width == 1 else 0)
    samples = np.repeat(whole.astype("<i8")[:, None], channels, axis=1)
    content = np.ascontiguousarray(samples).view("u1").reshape(-1, 8)[:, :width]
    about = {"rate": rate, "width": width, "channels": channels}
    payload = np.ascontiguousarray(content).tobytes()
    talk.says({"type": "audio-start", **about})
    for start in range(0, len(payload), 1001):
        piece = payload[start : start + 1001]
        talk.says({"type": "audio-chunk", **about, "payload": piece})
    talk.says(STOP)
    heard = np.concatenate(
        [c.samples for c in talk.commands if isinstance(c, PushAudio)]
    )
    assert abs(len(heard) - 16_000) < 20
    expected = np.sin(np.arange(16_000) * 2 * np.pi * 300 / 16_000) / 2
    error = np.abs(heard[500:15_000] - expected[500:15_000]).max()
    assert error < (0.02 if width == 1 else 0.002)


def test_a_stop_without_sound_is_an_empty_transcript() -> None:
    talk = WyomingTalk()
    told = talk.says(STOP)
    assert types(told) == ["transcript-start", "transcript", "transcript-stop"]
    assert told[1]["text"] == ""
    assert talk.commands == []


def test_names_and_terms_are_hot_words_names_first_and_bounded() -> None:
    talk = WyomingTalk()
    terms = [f"term {i}" for i in range(2000)]
    names = ["Kitchen", " ", "Kitchen", "Große Lampe"]
    about = {"transcript_names": names, "transcript_terms": terms}
    talk.says({"type": "transcribe", **about}, START)
    (opened,) = talk.commands
    assert isinstance(opened, Open)
    hotwords = opened.options.hotwords
    assert hotwords[:3] == ("Kitchen", "Große Lampe", "term 0")
    assert len(hotwords) == MAX_HOTWORDS
    assert opened.options.hotwords_are_hints
    talk.says(STOP, START)
    assert talk.commands[-1] == Open(StreamOptions()), "they were of the last one"


def test_pings_and_questions_are_answered_at_any_time() -> None:
    talk = WyomingTalk()
    question: dict[str, Any] = {"type": "ping", "text": "hello"}
    for _ in range(2):
        pong, info, empty = talk.says(question, {"type": "describe"}, {"type": "ping"})
        assert pong == {"type": "pong", "text": "hello"}
        assert empty == {"type": "pong", "text": None}
        program = Info.from_event(Event("info", info)).asr[0]
        assert program.supports_transcript_streaming
        assert program.installed
        assert program.models[0].name == "demo"
        assert {"en", "de", "zh"} <= {*program.models[0].languages}
        talk.says(START, SOUND)


def test_events_of_other_kinds_are_dropped() -> None:
    talk = WyomingTalk()
    for kind in ("synthesize", "detect", "run-satellite", "select-program", "x"):
        assert talk.says({"type": kind, "text": ["?"]}) == []
    assert not talk.is_closed


def test_lag_is_told_to_nobody_who_has_no_word_for_it() -> None:
    talk = WyomingTalk()
    talk.says(START, SOUND)
    assert talk.hears(Lagging(60_000, 60_000)) == []


def test_who_stops_sending_gets_the_last_words_and_may_go_on() -> None:
    talk = WyomingTalk()
    talk.says(START, SOUND)
    n = len(talk.told)
    talk.follow(talk.conversation.quiet())
    assert types(talk.told[n:]) == ["transcript-start", "transcript-chunk"]
    talk.follow(talk.conversation.quiet())
    assert [type(c) for c in talk.commands].count(Flush) == 1
    assert talk.says(SOUND, STOP)[-2]["text"] == "flushed end"


def test_a_server_that_goes_away_brings_out_the_last_words() -> None:
    talk = WyomingTalk()
    talk.says(START, SOUND)
    talk.follow(talk.conversation.end())
    assert types(talk.told)[-2:] == ["transcript", "transcript-stop"]
    assert talk.is_closed


WRONG: list[dict[str, Any]] = [
    {"type": "audio-start", "rate": 0, "width": 2, "channels": 1},
    {"type": "audio-start", "rate": 10**9, "width": 2, "channels": 1},
    {"type": "audio-start", "rate": -16_000},
    {"type": "audio-start", "rate": "16000"},
    {"type": "audio-start", "rate": 1e400},
    {"type": "audio-start", "rate": 16_000.5},
    {"type": "audio-start", "width": 0},
    {"type": "audio-start", "width": 5},
    {"type": "audio-start", "width": True},
    {"type": "audio-start", "channels": 0},
    {"type": "audio-start", "channels": 10**30},
    {"type": "audio-start", "channels": [1]},
    {"type": "audio-chunk", "rate": 5, "payload": b"ab"},
    {"type": "transcribe", "language": 3},
    {"type": "transcribe", "language": "x" * 257},
    {"type": "transcribe", "name": {}},
    {"type": "transcribe", "context": "x"},
    {"type": "transcribe", "context": {"a": "x" * 300}},
    {"type": "transcribe", "transcript_names": "x"},
    {"type": "transcribe", "transcript_names": [3]},
    {"type": "transcribe", "transcript_terms": ["x" * 300]},
    {"type": "ping", "text": "x" * 257},
    {"type": "ping", "text": {}},
]


@pytest.mark.parametrize("message", WRONG, ids=str)
def test_what_is_wrong_gets_an_error_and_the_end(message: dict[str, Any]) -> None:
    """An end, too: clients wait for a transcript, and would not stop at an error."""
    talk = WyomingTalk()
    (told,) = talk.says(message)
    error = Error.from_event(Event(told["type"], told))
    assert (told["type"], error.code) == ("error", "invalid_value")
    assert "\n" not in error.text
    assert talk.is_closed
    assert talk.commands == []


def test_a_second_start_within_an_utterance_is_wrong() -> None:
    talk = WyomingTalk()
    assert talk.says(START, SOUND, START)[0]["code"] == "already_started"
    assert talk.is_closed


FIELDS = ["type", "rate", "width", "channels", "text", "context", "language", "name"]
FIELDS += ["draft_delay_ms"]
VALUES = st.none() | st.booleans() | st.integers(-3, 50_000) | st.text(max_size=9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from([*WyomingTalk().conversation.dialect.handlers])},
            optional={**dict.fromkeys(FIELDS[1:], VALUES), "payload": st.binary()},
        )
        | st.sampled_from([START, SOUND, STOP]),
        max_size=12,
    )
)
def test_no_events_whatever_break_a_conversation(
    messages: list[dict[str, Any]],
) -> None:
    talk = WyomingTalk()
    for message in messages:
        if not talk.is_closed:
            talk.says(message)
    if not talk.is_closed:
        talk.follow(talk.conversation.end())
    assert talk.is_closed


# ------------------------------------------------------------ over TCP


Said = Callable[[AsyncTcpClient], Awaitable[Any]]


def with_client(server: Loopback, talk: Said) -> Any:
    async def run() -> Any:
        client = AsyncTcpClient("127.0.0.1", server.wyoming_port)
        async with asyncio.timeout(PATIENCE_S), client:
            return await talk(client)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Checkpoint) -> Any:
    limits = Limits(max_message_bytes=10_000)
    with serving(tiny_checkpoint, limits=limits) as server:
        yield server


@pytest.fixture(scope="module")
def hasty(tiny_checkpoint: Checkpoint) -> Any:
    """It waits for nobody, which a busy machine could be, too."""
    limits = Limits(head_s=0.4, idle_s=1.5, quiet_s=0.5)
    with serving(tiny_checkpoint, limits=limits) as server:
        yield server


async def heard(client: AsyncTcpClient, last: str) -> list[Event]:
    """Events up to the first of type `last`, or to the end of the connection."""
    events: list[Event] = []
    while (event := await client.read_event()) is not None:
        events.append(event)
        if event.type == last:
            break
    return events


async def speak(
    client: AsyncTcpClient, content: bytes, about: dict[str, Any] | None = None
) -> str:
    """As Home Assistant does; what it would take for the transcript."""
    about = about or MONO
    n = about["rate"] // 10 * about["width"] * about["channels"]
    await client.write_event(Transcribe(language="en").event())
    await client.write_event(AudioStart(**about).event())
    for start in range(0, len(content), n):
        sound = AudioChunk(**about, audio=content[start : start + n])
        await client.write_event(sound.event())
    await client.write_event(AudioStop().event())
    events = await heard(client, "transcript-stop")
    (whole,) = (Transcript.from_event(e) for e in events if e.type == "transcript")
    pieces = [TranscriptChunk.from_event(e) for e in events if "chunk" in e.type]
    assert "".join(piece.text for piece in pieces) == whole.text
    assert whole.language is None
    return whole.text


def test_wyomings_client_transcribes_what_it_sends_twice(
    server: Loopback, sample: np.ndarray, start_text: str
) -> None:
    async def talk(client: AsyncTcpClient) -> list[str]:
        texts: list[str] = []
        for _ in range(2):
            texts.append(await speak(client, pcm16(sample[: 5 * 16_000])))
            until(lambda: server.scheduler.n_slots == 0)
        return texts

    assert with_client(server, talk) == [start_text] * 2


def test_what_a_wav_file_holds_is_transcribed_in_its_own_format(
    server: Loopback, sample: np.ndarray, start_text: str
) -> None:
    import wave  # of Wyoming's helper

    file = io.BytesIO()
    start = pcm16(np.repeat(sample[: 5 * 16_000], 2))
    with wave.open(file, "wb") as writer:
        writer.setparams((2, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(start)

    async def talk(client: AsyncTcpClient) -> str:
        file.seek(0)
        with wave.open(file, "rb") as reader:
            events = wav_to_chunks(reader, 1024, start_event=True, stop_event=True)
            for event in events:
                await client.write_event(event.event())
        return Transcript.from_event((await heard(client, "transcript"))[-1]).text

    assert with_client(server, talk) == start_text


def test_utterances_that_are_sent_at_once_are_answered_in_order(
    tiny: Loopback,
) -> None:
    sounds = [pcm16(speech_like(24_000 + 8_000 * i, seed=i)) for i in range(3)]

    async def apart(client: AsyncTcpClient) -> list[str]:
        return [await speak(client, sound) for sound in sounds]

    async def at_once(client: AsyncTcpClient) -> list[str]:
        texts: list[str] = []
        for i, sound in enumerate(sounds):
            await client.write_event(Transcribe(context={"id": i}).event())
            chunk = AudioChunk(**MONO, audio=sound[:9000])
            await client.write_event(chunk.event())
            rest = [sound[n : n + 9000] for n in range(9000, len(sound), 9000)]
            for piece in rest:
                await client.write_event(AudioChunk(**MONO, audio=piece).event())
            await client.write_event(AudioStop().event())
        for i in range(len(sounds)):
            *_, last = await heard(client, "transcript")
            told = Transcript.from_event(last)
            assert told.context == {"id": i}
            texts.append(told.text)
        return texts

    assert with_client(tiny, at_once) == with_client(tiny, apart)
    until(lambda: tiny.scheduler.n_slots == 0)


def test_slots_are_of_all_clients_and_questions_need_none(
    tiny_checkpoint: Checkpoint,
) -> None:
    async def ask(client: AsyncTcpClient) -> list[Event]:
        await client.write_event(Describe().event())
        await client.write_event(Ping(text="there?").event())
        assert Info.is_type((await heard(client, "info"))[-1].type)
        assert Pong.from_event((await heard(client, "pong"))[-1]).text == "there?"
        assert server.scheduler.n_slots == 1
        await client.write_event(AudioStart(**MONO).event())
        for _ in range(10):  # what has no place is not heard
            chunk = AudioChunk(**MONO, audio=bytes(3200))
            await client.write_event(chunk.event())
        return await heard(client, "none")

    with serving(tiny_checkpoint, max_sessions=1) as server:
        with connect(f"{server.ws}/v1/realtime"):
            (told,) = with_client(server, ask)
            assert Error.from_event(told).code == "at_capacity"
        until(lambda: server.scheduler.n_slots == 0)

        async def speak_on(client: AsyncTcpClient) -> None:
            await speak(client, pcm16(speech_like(16_000)))

        with_client(server, speak_on)
        until(lambda: server.scheduler.n_slots == 0)
        with connect(f"{server.ws}/v1/realtime") as websocket:
            assert said(websocket, "session.created")
        until(lambda: server.tasks() == IDLE)


def answer(server: Loopback, content: bytes) -> list[Event]:
    """What somebody is told who says just that, until the connection ends."""
    with socket.create_connection(
        ("127.0.0.1", server.wyoming_port), PATIENCE_S
    ) as one:
        one.sendall(content)
        told = b""
        while piece := one.recv(65_536):
            told += piece

    async def read() -> list[Event]:
        reader = asyncio.StreamReader()
        reader.feed_data(told)
        reader.feed_eof()
        events: list[Event] = []
        while (event := await async_read_event(reader)) is not None:
            events.append(event)
        return events

    return asyncio.run(read())


def test_whoever_sends_no_events_is_told_and_shown_the_door(tiny: Loopback) -> None:
    for content in BROKEN:
        (told,) = answer(tiny, content)
        assert Error.from_event(told).text, content
    assert tiny.scheduler.n_slots == 0


def test_what_follows_a_mistake_is_not_heard(tiny: Loopback) -> None:
    """A page of a stranger may post a form here: its head is a mistake already."""
    form = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + on_wire(Describe().event())
    assert [event.type for event in answer(tiny, form)] == ["error"]
    wrong = on_wire(AudioStart(rate=1, width=2, channels=1).event())
    (told,) = answer(tiny, wrong + on_wire(AudioStart(**MONO).event()))
    assert told.type == "error"
    assert tiny.scheduler.n_slots == 0


@pytest.mark.parametrize("is_trickled", [False, True])
def test_an_event_that_does_not_become_whole_is_not_waited_for(
    hasty: Loopback, is_trickled: bool
) -> None:
    with socket.create_connection(("127.0.0.1", hasty.wyoming_port), PATIENCE_S) as one:
        one.sendall(on_wire(Describe().event()) + b"{")
        told = b""
        end = time.monotonic() + PATIENCE_S
        while b"error" not in told:
            assert time.monotonic() < end
            if not is_trickled or select.select([one], [], [], 0.05)[0]:
                told += one.recv(65_536)
            else:
                one.sendall(b" ")
        assert b'"code": "too_slow"' in told


def test_who_says_nothing_is_let_go(hasty: Loopback) -> None:
    (told,) = answer(hasty, b"")
    assert Error.from_event(told).code == "idle"
    told, *_ = answer(hasty, on_wire(AudioStart(**MONO).event()))
    until(lambda: hasty.scheduler.n_slots == 0)


def test_a_flood_of_questions_that_reads_no_answers_is_ended(
    tiny_checkpoint: Checkpoint,
) -> None:
    limits = Limits(max_unread_bytes=200_000, write_s=1.0)
    question = on_wire(Describe().event()) * 1000
    with (
        serving(tiny_checkpoint, limits=limits) as server,
        socket.create_connection(("127.0.0.1", server.wyoming_port)) as flood,
    ):
        flood.settimeout(PATIENCE_S)
        with contextlib.suppress(ConnectionError):
            while True:
                flood.sendall(question)
        until(lambda: server.service.n_connections == 0)


def test_half_events_of_all_clients_have_one_bound_in_bytes(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[PartialBytes] = []

    def noted(max_bytes: int) -> PartialBytes:
        held.append(PartialBytes(max_bytes))
        return held[-1]

    monkeypatch.setattr("voxmlx.serve.wyoming_server.PartialBytes", noted)
    half = on_wire(AudioChunk(**MONO, audio=bytes(200_000)).event())[:150_000]
    limits = Limits(max_partial_bytes=1 << 20, head_s=600)
    with (
        serving(tiny_checkpoint, limits=limits) as server,
        contextlib.ExitStack() as stack,
    ):
        for n in range(20):
            address = ("127.0.0.1", server.wyoming_port)
            plain = stack.enter_context(socket.create_connection(address))
            with contextlib.suppress(OSError):
                plain.sendall(half)
            if (n + 1) * len(half) <= 1 << 20:
                until(lambda n=n: held[0].n_bytes > n * len(half) + 149_000)
        # Those that are let stay hold the bound; small events are answered.
        told = answer(server, half)
        assert Error.from_event(told[0]).code == "at_capacity"

        async def ask(client: AsyncTcpClient) -> None:
            await client.write_event(Describe().event())
            await heard(client, "info")

        with_client(server, ask)
        stack.close()
        until(lambda: server.service.n_connections == 0)

        async def speak_on(client: AsyncTcpClient) -> None:
            about = {**MONO, "rate": 96_000}  # 19 kB for each 100 ms
            await speak(client, pcm16(speech_like(16_000)), about)

        with_client(server, speak_on)


def test_connections_of_all_kinds_have_one_bound(tiny_checkpoint: Checkpoint) -> None:
    address = "127.0.0.1"
    with (
        serving(tiny_checkpoint, limits=Limits(max_connections=2)) as server,
        connect(f"{server.ws}/v1/realtime"),
        socket.create_connection((address, server.wyoming_port)) as busy,
    ):
        busy.sendall(on_wire(AudioStart(**MONO).event()))
        until(lambda: server.scheduler.n_slots == 2)
        (told,) = answer(server, b"")
        assert Error.from_event(told).code == "too_many_connections"
        busy.sendall(on_wire(AudioStop().event()))
        until(lambda: server.scheduler.n_slots == 1)
        # It waits for nothing now, and makes room.
        (told,) = answer(server, on_wire(Ping(text="in").event()) + b"?\n")[:1]
        assert told.type == "pong"


def test_a_server_that_is_ended_brings_out_what_was_said(
    tiny_checkpoint: Checkpoint,
) -> None:
    with serving(tiny_checkpoint) as server:

        async def talk(client: AsyncTcpClient) -> list[str]:
            await client.write_event(AudioStart(**MONO).event())
            audio = pcm16(speech_like(16_000))
            chunk = AudioChunk(**MONO, audio=audio)
            await client.write_event(chunk.event())
            await client.write_event(Ping().event())
            await heard(client, "pong")
            server.end()
            events = await heard(client, "none")
            return [event.type for event in events if "chunk" not in event.type]

        assert with_client(server, talk)[-2:] == ["transcript", "transcript-stop"]


class Gone:
    """A transport whose client speaks, and leaves."""

    def __init__(self) -> None:
        self._events = [JsonObject(SOUND, payload=SOUND["payload"])]

    async def open(self) -> None: ...

    async def receive(self) -> JsonObject | None:
        return self._events.pop() if self._events else None

    def encode(self, message: Any) -> bytes:
        return encode_event(message)

    async def send(self, encoded: bytes) -> None: ...

    async def close(self, close: Close) -> None: ...


def test_a_client_that_is_leaving_as_the_server_ends_is_nobodys_trouble(
    tiny_checkpoint: Checkpoint,
) -> None:
    scheduler = Scheduler(tiny_checkpoint, max_sessions=1)

    async def leave() -> None:
        connection = Connection(
            Gone(), WyomingConversation(served()), scheduler, Limits(), NullMetrics()
        )
        await connection.run()
        connection.end()

    asyncio.run(leave())
    assert scheduler.n_slots == 0


def test_a_server_that_is_ended_at_once_says_nothing_of_its_clients(
    tiny_checkpoint: Checkpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        contextlib.ExitStack() as stack,
        serving(tiny_checkpoint, limits=Limits(grace_s=0.1)) as server,
    ):
        for _ in range(5):
            address = ("127.0.0.1", server.wyoming_port)
            plain = stack.enter_context(socket.create_connection(address))
            plain.sendall(on_wire(AudioStart(**MONO).event()))
        until(lambda: server.scheduler.n_slots == 5)
        server.end()
        server.end()
    assert "Traceback" not in capfd.readouterr().err


def test_a_bystander_is_not_disturbed(
    tiny: Loopback, tiny_checkpoint: Checkpoint
) -> None:
    sound = pcm16(speech_like(24_000, seed=3))

    async def talk(client: AsyncTcpClient) -> str:
        return await speak(client, sound)

    expected = with_client(tiny, talk)
    with socket.create_connection(("127.0.0.1", tiny.wyoming_port)) as gone:
        gone.sendall(json.dumps({"type": "audio-start", "data": MONO}).encode() + b"\n")
        gone.sendall(on_wire(AudioChunk(**MONO, audio=sound).event())[:5000])
        assert with_client(tiny, talk) == expected
    until(lambda: tiny.scheduler.n_slots == 0)
