"""Drafts in every dialect: for who asks, beside messages that are the same for all."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect
from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event as WyomingEvent

from tests.serve.loopback import PATIENCE_S, Loopback, said, serving, sound
from tests.serve.scripts import (
    BETA,
    MISTRAL,
    OPENAI,
    Talk,
    WyomingTalk,
    append,
    mistral_append,
    served,
)
from tests.sounds import speech_like
from voxmlx import Checkpoint, Session
from voxmlx.events import DraftChanged, Event, TextDelta, UtteranceEnd
from voxmlx.serve.connection import Connection
from voxmlx.serve.conversation import Conversation, Hints
from voxmlx.serve.metrics_sink import NullMetrics
from voxmlx.serve.protocol import Close, Open
from voxmlx.serve.scheduler import Scheduler
from voxmlx.web.limits import Limits

MONO: dict[str, Any] = {"rate": 16_000, "width": 2, "channels": 1}
ITEM = "conversation.item.input_audio_transcription"

DELAY_MS, DRAFT_MS = 480, 80


@dataclass(frozen=True)
class Dialect:
    """How a client of one protocol talks: what it asks with, sends and is told."""

    talk: Callable[[], Talk]
    ask: Callable[[dict[str, Any]], dict[str, Any]]
    sound: dict[str, Any]
    draft: str
    text: str  # the field of a draft
    delta: tuple[str, str]  # type and field


def openai_update(asked: dict[str, Any]) -> dict[str, Any]:
    about = {"transcription": asked}
    return {"type": "session.update", "session": {"audio": {"input": about}}}


def beta_update(asked: dict[str, Any]) -> dict[str, Any]:
    session = {"input_audio_transcription": asked}
    return {"type": "transcription_session.update", "session": session}


DIALECTS = {
    "vllm": Dialect(
        Talk,
        lambda asked: {"type": "session.update", **asked},
        append(160),
        "transcription.draft",
        "text",
        ("transcription.delta", "delta"),
    ),
    "openai": Dialect(
        lambda: Talk(OPENAI),
        openai_update,
        append(2400),
        f"{ITEM}.draft",
        "draft",
        (f"{ITEM}.delta", "delta"),
    ),
    "openai beta": Dialect(
        lambda: Talk(BETA),
        beta_update,
        append(2400),
        f"{ITEM}.draft",
        "draft",
        (f"{ITEM}.delta", "delta"),
    ),
    "mistral": Dialect(
        lambda: Talk(MISTRAL),
        lambda asked: {"type": "session.update", "session": asked},
        mistral_append(),
        "transcription.draft",
        "text",
        ("transcription.text.delta", "text"),
    ),
    "wyoming": Dialect(
        WyomingTalk,
        lambda asked: {"type": "transcribe", **asked},
        {"type": "audio-chunk", **MONO, "payload": bytes(3200)},
        "transcript-draft",
        "text",
        ("transcript-chunk", "text"),
    ),
}
all_dialects = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)


@pytest.fixture(scope="module")
def events(demo_checkpoint: Checkpoint, sample: np.ndarray) -> list[Event]:
    """What a session with a draft says of the sample's beginning, pushed as it is spoken."""
    session = Session(demo_checkpoint, delay_ms=DELAY_MS, draft_delay_ms=DRAFT_MS)
    told: list[Event] = []
    for start in range(0, 5 * 16_000, 1280):
        told += session.push(sample[start : start + 1280])
    return told + session.finish()


def opened(dialect: Dialect, asked: dict[str, Any] | None) -> Talk:
    """A client whose sound has begun."""
    talk = dialect.talk()
    if asked is not None:
        talk.says(dialect.ask(asked))
    talk.says(dialect.sound)
    assert isinstance(talk.commands[0], Open)
    wanted = None if asked is None else asked["draft_delay_ms"]
    assert talk.commands[0].options.draft_delay_ms == wanted
    return talk


def plain(told: list[dict[str, Any]], draft: str) -> list[str]:
    """Messages without drafts, and without the numbers that count messages and items."""
    counted = {"event_id", "item_id", "previous_item_id", "item"}
    kept = [
        json.dumps({name: one for name, one in m.items() if name not in counted})
        for m in told
        if m["type"] != draft
    ]
    # An utterance of Wyoming begins with its first text, be it a draft.
    return [one for one in kept if one != '{"type": "transcript-start"}']


@all_dialects
def test_a_draft_changes_no_other_message(
    dialect: Dialect, events: list[Event]
) -> None:
    asking, other = opened(dialect, {"draft_delay_ms": DRAFT_MS}), opened(dialect, None)
    told = asking.hears(*events)
    without = other.hears(*(e for e in events if not isinstance(e, DraftChanged)))
    assert plain(told, dialect.draft) == plain(without, dialect.draft)
    drafts = [m for m in told if m["type"] == dialect.draft]
    assert len(drafts) > 10
    assert not any("draft" in json.dumps(m) for m in [*other.told, *without])


@all_dialects
def test_a_draft_follows_the_text_and_never_repeats_it(
    dialect: Dialect, events: list[Event]
) -> None:
    talk = opened(dialect, {"draft_delay_ms": DRAFT_MS})
    whole = "".join(e.text for e in events if isinstance(e, TextDelta))
    delta, field = dialect.delta
    text, shown = "", list[str]()
    for message in talk.hears(*events):
        if message["type"] == delta:
            text += message[field]
        elif message["type"] == dialect.draft:
            shown.append(text + message[dialect.text])
    assert text.strip() == whole.strip()
    words = whole.split()
    assert len(words) > 8
    for one in shown:
        assert len(one.split()) <= len(words)
    right = [one for one in shown if whole.strip().startswith(one.strip())]
    assert len({*right}) >= 0.7 * len(words)
    assert shown[-1].strip() == whole.strip()


@all_dialects
@pytest.mark.parametrize("draft_ms", [0, 100, 79, 480, 960, -80])
def test_a_draft_that_is_not_possible_is_refused_as_the_dialect_refuses(
    dialect: Dialect, draft_ms: int
) -> None:
    talk = dialect.talk()
    (error,) = talk.says(dialect.ask({"draft_delay_ms": draft_ms}))
    assert error["type"] == "error"
    assert "draft_delay_ms" in json.dumps(error)
    assert str(draft_ms) in json.dumps(error)
    detail = error.get("error")
    code = detail["code"] if isinstance(detail, dict) else error["code"]
    assert code == (400 if dialect is DIALECTS["mistral"] else "invalid_value")
    assert talk.commands == []


@all_dialects
@pytest.mark.parametrize("draft_ms", ["80", 80.5, True, [80], {}])
def test_a_draft_of_another_type_is_refused(dialect: Dialect, draft_ms: Any) -> None:
    talk = dialect.talk()
    (error,) = talk.says(dialect.ask({"draft_delay_ms": draft_ms}))
    assert error["type"] == "error"
    assert "draft_delay_ms" in json.dumps(error)


@all_dialects
def test_who_takes_the_draft_back_is_as_if_none_was_asked_for(dialect: Dialect) -> None:
    talk = dialect.talk()
    talk.says(dialect.ask({"draft_delay_ms": 80}))
    talk.says(dialect.ask({"draft_delay_ms": None}), dialect.sound)
    assert isinstance(talk.commands[0], Open)
    assert talk.commands[0].options.draft_delay_ms is None


def test_the_delay_that_a_draft_has_is_shown() -> None:
    (vllm,) = Talk().says({"type": "session.update", "draft_delay_ms": 160})
    assert vllm["session"]["draft_delay_ms"] == 160
    (vllm,) = Talk().says({"type": "session.update", "draft_delay_ms": None})
    assert vllm["session"]["draft_delay_ms"] is None
    (openai,) = Talk(OPENAI).says(openai_update({"draft_delay_ms": 160}))
    about = openai["session"]["audio"]["input"]["transcription"]
    assert about["draft_delay_ms"] == 160
    asked = {"session": {"draft_delay_ms": 160}}
    (mistral,) = Talk(MISTRAL).says({"type": "session.update", **asked})
    assert mistral["session"]["draft_delay_ms"] == 160


def test_a_delay_below_the_drafts_is_refused() -> None:
    talk = Talk(OPENAI)
    talk.says(openai_update({"delay": "high", "draft_delay_ms": 480}))
    (error,) = talk.says(openai_update({"delay": "low"}))
    assert "expected less than the delay of 240 ms" in error["error"]["message"]
    (updated,) = talk.says(openai_update({"delay": "low", "draft_delay_ms": None}))
    assert updated["type"] == "session.updated"


# --------------------------------------------------------- items of OpenAI


def items(told: list[dict[str, Any]], kind: str) -> list[str]:
    return [m["item_id"] for m in told if m["type"] == f"{ITEM}.{kind}"]


def test_a_draft_names_the_item_that_its_words_come_in() -> None:
    talk = opened(DIALECTS["openai"], {"draft_delay_ms": 80})
    told = talk.hears(
        DraftChanged(" one", 80), TextDelta(" one", 480), DraftChanged(" two", 560)
    )
    (item,) = {*items(told, "draft")}
    assert items(told, "delta") == [item]
    assert [m["type"] for m in told][:2] == [
        f"{ITEM}.draft",
        "input_audio_buffer.speech_started",
    ]
    told = talk.hears(UtteranceEnd(0, 500, 1000))
    assert items(told, "completed") == [item]
    # What the draft still says is of the next item.
    (moved,) = items(told, "draft")
    assert moved != item
    told = talk.hears(TextDelta(" two", 1200), DraftChanged("", 1300))
    assert items(told, "delta") == items(told, "draft") == [moved]


def test_a_commit_takes_the_item_that_the_draft_has_named() -> None:
    talk = opened(DIALECTS["openai"], {"draft_delay_ms": 80})
    (draft,) = talk.hears(DraftChanged(" fl", 80))
    told = talk.says({"type": "input_audio_buffer.commit"})
    (completed,) = items(told, "completed")
    assert draft["item_id"] == completed


def test_the_draft_of_a_turn_that_was_cleared_is_not_told() -> None:
    talk = opened(DIALECTS["openai"], {"draft_delay_ms": 80})
    talk.hears(TextDelta(" one", 80))
    dialect = talk.conversation.dialect
    effects = talk.conversation.receive('{"type": "input_audio_buffer.clear"}')
    assert dialect.notice(DraftChanged(" two", 160)) == []
    talk.follow(effects)


# ------------------------------------------------------------ over sockets


class SlowTransport:
    """A socket whose client reads nothing until it `may_read`."""

    def __init__(self, messages: list[str]) -> None:
        self.messages = messages
        self.sent: list[dict[str, Any]] = []
        self.may_read = asyncio.Event()

    async def open(self) -> None:
        pass

    async def receive(self) -> str | None:
        if self.messages:
            return self.messages.pop(0)
        await asyncio.Event().wait()
        return None

    def encode(self, message: Any) -> str:
        return json.dumps(message)

    async def send(self, encoded: str) -> None:
        self.sent.append(json.loads(encoded))
        await self.may_read.wait()

    async def close(self, close: Close) -> None:
        pass


def test_only_the_newest_draft_waits_for_a_slow_reader(
    tiny_checkpoint: Checkpoint,
) -> None:
    async def talk() -> list[dict[str, Any]]:
        transport = SlowTransport([])
        scheduler = Scheduler(tiny_checkpoint, max_sessions=1)
        conversation = Conversation(served(), Hints())
        connection = Connection(
            transport, conversation, scheduler, Limits(), NullMetrics()
        )
        running = asyncio.create_task(connection.run())
        while not transport.sent:
            await asyncio.sleep(0)
        (slot,) = scheduler.slots
        for i in range(30_000):  # of 6 MB, more than may wait
            slot.deliver([DraftChanged(f"draft {i} " + "x" * 200, 80 * i)])
        slot.deliver([TextDelta(" one", 80), DraftChanged(" last", 90)])
        is_delivered = asyncio.Event()
        asyncio.get_running_loop().call_soon(is_delivered.set)  # behind all of those
        await is_delivered.wait()
        transport.may_read.set()
        while len(transport.sent) < 3:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return transport.sent

    _, delta, draft = asyncio.run(talk())
    assert (delta["delta"], draft["text"]) == (" one", " last")


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Checkpoint) -> Any:
    with serving(tiny_checkpoint) as server:
        yield server


SOUND = speech_like(30_000, seed=6)


def test_clients_with_and_without_drafts_get_one_text_in_one_server(
    tiny: Loopback,
) -> None:
    """At once, so that their rows share passes."""
    texts: dict[str, tuple[str, int]] = {}

    def talk(name: str, **asked: Any) -> None:
        with connect(f"{tiny.ws}/v1/realtime") as websocket:
            update = {"type": "session.update", "delay_ms": 480, **asked}
            websocket.send(json.dumps(update))
            for message in sound(SOUND, piece=1111):
                websocket.send(message)
            final = {"type": "input_audio_buffer.commit", "final": True}
            websocket.send(json.dumps(final))
            told = said(websocket, "transcription.done")
        n_drafts = sum(m["type"] == "transcription.draft" for m in told)
        texts[name] = (told[-1]["text"], n_drafts)

    asked = {"none": {}, "80": {"draft_delay_ms": 80}, "240": {"draft_delay_ms": 240}}
    threads = [
        threading.Thread(target=talk, args=(name,), kwargs=one)
        for name, one in asked.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len({text for text, _ in texts.values()}) == 1
    assert texts["none"][1] == 0
    assert texts["80"][1] > 0
    assert texts["240"][1] > 0


def test_wyomings_package_overlooks_drafts(tiny: Loopback) -> None:
    pcm = (SOUND * 32768).clip(-32768, 32767).astype("<i2").tobytes()

    async def talk(asked: dict[str, Any]) -> tuple[str, str, int]:
        async with AsyncTcpClient("127.0.0.1", tiny.wyoming_port) as client:
            await client.write_event(WyomingEvent("transcribe", asked))
            await client.write_event(AudioChunk(**MONO, audio=pcm).event())
            await client.write_event(AudioStop().event())
            parts, n_drafts = list[str](), 0
            while True:
                event = await client.read_event()
                assert event is not None
                n_drafts += event.type == "transcript-draft"
                if TranscriptChunk.is_type(event.type):
                    parts.append(TranscriptChunk.from_event(event).text)
                if Transcript.is_type(event.type):
                    whole = Transcript.from_event(event).text
                    return "".join(parts), whole, n_drafts

    with_drafts = asyncio.run(talk({"draft_delay_ms": 80}))
    without = asyncio.run(talk(Transcribe().event().data))
    assert with_drafts[:2] == without[:2]
    assert without[2] == 0
    assert with_drafts[2] > 0
