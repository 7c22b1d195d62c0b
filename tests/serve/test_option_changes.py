"""Options that change while somebody speaks cost no word, in OpenAI's dialect."""

import json
import time
from typing import Any

import numpy as np
import pytest

from tests.serve.loopback import sound
from tests.serve.scripts import OPENAI, Talk, append, served
from voxmlx import Checkpoint
from voxmlx.events import (
    DraftChanged,
    Finished,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
)
from voxmlx.serve.conversation import Conversation
from voxmlx.serve.protocol import (
    Effect,
    Finish,
    Flush,
    Flushed,
    Notice,
    Open,
    PushAudio,
    Send,
)
from voxmlx.serve.scheduler import Scheduler

ITEM = "conversation.item.input_audio_transcription"
PIECE_S = 0.1


def update(**transcription: Any) -> str:
    about = {"format": {"type": "audio/pcm", "rate": 16_000}}
    session = {"audio": {"input": {**about, "transcription": transcription}}}
    return json.dumps({"type": "session.update", "session": session})


class Client:
    """A client, its dialect and its scheduler on one thread: nothing depends on time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.scheduler = Scheduler(checkpoint, max_sessions=1)
        self.conversation = Conversation(served(), OPENAI)
        self.told: list[dict[str, Any]] = []
        self._notices: list[Notice] = []
        self._slot = self.scheduler.open_slot(self._notices.extend)
        self.n_opened = 0

    def says(self, message: str) -> None:
        self._follow(self.conversation.receive(message))

    def decode(self) -> None:
        """Let the scheduler decode all that it has."""
        while self.scheduler.is_due or self._slot.inbox or self._notices:
            self.scheduler.tick()
            if self._slot.inbox:
                time.sleep(0.001)  # hot words are made on another thread
            notices = list(self._notices)
            self._notices.clear()
            for notice in notices:
                self._follow(self.conversation.notice(notice))

    def ends(self) -> None:
        self.decode()
        self._follow(self.conversation.quiet())
        self.decode()
        self._slot.release()
        self.scheduler.tick()

    def _follow(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(message):
                    self.told.append(message)
                case Open() | PushAudio() | Flush() | Finish():
                    self.n_opened += isinstance(effect, Open)
                    self._slot.submit(effect)
                case _:
                    raise AssertionError(effect)

    def of(self, kind: str) -> list[dict[str, Any]]:
        assert not [m for m in self.told if m["type"] == "error"]
        return [m for m in self.told if m["type"].endswith(kind)]


def heard(
    checkpoint: Checkpoint,
    samples: np.ndarray,
    changes: dict[float, dict[str, Any]],
    every_s: float = PIECE_S,
) -> Client:
    """A client that changes options at times, with `every_s` of sound decoded at once."""
    client = Client(checkpoint)
    client.says(update(**changes.get(0.0, {})))
    due_s = every_s
    for i, message in enumerate(sound(samples)):
        at_s = round(i * PIECE_S, 3)
        if i and at_s in changes:
            client.says(update(**changes[at_s]))
        client.says(message)
        if at_s + PIECE_S >= due_s:
            client.decode()
            due_s += every_s
    client.ends()
    return client


def turns(client: Client) -> list[str]:
    return [m["transcript"] for m in client.of(".completed")]


DRAFT, NO_DRAFT = {"draft_delay_ms": 160}, {"draft_delay_ms": None}
CHANGES: dict[str, dict[float, dict[str, Any]]] = {
    "draft off": {0.0: DRAFT, 1.5: NO_DRAFT},
    "draft on": {2.5: DRAFT},
    "delay": {1.0: {"delay": "high"}},
    "back and forth": {
        0.5: {"keywords": ["heating"]},
        3.0: {"delay": "high"},
        4.0: {"delay": "medium", **DRAFT},
        6.5: NO_DRAFT,
    },
}
WAYS = {"as spoken": PIECE_S, "in bursts": 2.0, "at once": 100.0}


def times(client: Client) -> tuple[list[int], list[int]]:
    """When turns began and ended, on the client's clock."""
    starts = [m["audio_start_ms"] for m in client.of("speech_started")]
    return starts, [m["audio_end_ms"] for m in client.of("speech_stopped")]


@pytest.fixture(scope="module")
def start(sample: np.ndarray) -> np.ndarray:
    """Two turns of the sample."""
    return sample[: 5 * 16_000]


@pytest.fixture(scope="module")
def unchanged(demo_checkpoint: Checkpoint, start: np.ndarray) -> Client:
    return heard(demo_checkpoint, start, {}, 100.0)


@pytest.mark.parametrize(
    ("change", "every_s"),
    [("draft off", PIECE_S), ("delay", 100.0), ("back and forth", 2.0)],
)
def test_a_change_of_options_costs_no_word(
    demo_checkpoint: Checkpoint,
    start: np.ndarray,
    unchanged: Client,
    change: str,
    every_s: float,
) -> None:
    client = heard(demo_checkpoint, start, CHANGES[change], every_s)
    assert client.n_opened > 1
    assert len(turns(client)) == 2
    assert turns(client) == turns(unchanged)
    assert times(client) == times(unchanged)


@pytest.mark.slow
@pytest.mark.parametrize("every_s", WAYS.values(), ids=WAYS)
def test_options_that_change_all_the_time_cost_no_word(
    demo_checkpoint: Checkpoint, sample: np.ndarray, every_s: float
) -> None:
    expected = heard(demo_checkpoint, sample, {}, 100.0)
    names = ("low", "xhigh", "medium")
    toggled = {round(0.3 * i, 3): NO_DRAFT if i % 2 else DRAFT for i in range(60)}
    delays = {round(0.7 * i, 3): {"delay": names[i % 3]} for i in range(24)}
    for changes in (*CHANGES.values(), toggled, delays):
        client = heard(demo_checkpoint, sample, changes, every_s)
        assert client.n_opened > 1
        assert turns(client) == turns(expected)
        assert times(client) == times(expected)


def test_the_next_stream_hears_again_from_the_middle_of_the_pause() -> None:
    talk = Talk(OPENAI)
    talk.says(update(), append(32_000))
    talk.hears(DraftChanged("one", 400), TextDelta(" one", 500))
    talk.says(update(delay="high"))
    n = len(talk.commands)
    talk.hears(DraftChanged("thr", 900))
    told = talk.hears(UtteranceEnd(100, 480, 960))
    finish, opened, again = talk.commands[n:]
    assert finish == Finish(is_cut=True)
    assert isinstance(opened, Open)
    assert opened.options.delay_ms == 960
    assert isinstance(again, PushAudio)
    assert len(again.samples) == 32_000 - 720 * 16
    # The script's stream says more before it ends: nobody is told.
    assert [m["delta"] for m in talk.told if m["type"] == f"{ITEM}.delta"] == [" one"]
    drafts = [m["draft"] for m in told if m["type"] == f"{ITEM}.draft"]
    assert drafts[-1] == ""


def test_without_a_change_no_stream_is_opened_and_nothing_is_heard_again() -> None:
    talk = Talk(OPENAI)
    talk.says(update(), append(32_000))
    talk.hears(TextDelta(" one", 500), UtteranceEnd(100, 480, 960))
    talk.says(update(), append(16_000))
    talk.hears(TextDelta(" two", 1500), UtteranceEnd(1300, 1480, 1960))
    assert [type(command) for command in talk.commands] == [Open, PushAudio, PushAudio]


def test_a_stream_that_is_flushed_is_renewed_from_the_flush_on() -> None:
    """A client may be quiet, and speak again before it has its last words."""
    conversation = Conversation(served(), OPENAI)
    conversation.receive(update())
    conversation.receive(json.dumps(append(16_000)))
    conversation.notice(TextDelta(" one", 500))
    conversation.receive(update(delay="high"))
    assert [type(effect) for effect in conversation.quiet()] == [Flush]
    conversation.receive(json.dumps(append(8_000)))
    told = conversation.notice(UtteranceEnd(100, 480, 1400))
    assert not [effect for effect in told if isinstance(effect, Finish)]
    done = conversation.notice(Flushed(1000))
    (again,) = [effect for effect in done if isinstance(effect, PushAudio)]
    assert len(again.samples) == 8_000


def test_where_nobody_speaks_a_change_does_not_wait_for_the_next_turn() -> None:
    talk = Talk(OPENAI)
    talk.says(update(), append(32_000), update(delay="high"))
    ids = [TokenDecoded(32, i, 80 * i) for i in range(20)]
    talk.hears(*ids[:12])
    assert [type(command) for command in talk.commands] == [Open, PushAudio]
    talk.hears(*ids[12:])
    opened = [command for command in talk.commands if isinstance(command, Open)]
    assert [one.options.delay_ms for one in opened] == [480, 960]
    again = talk.commands[-1]
    assert isinstance(again, PushAudio)
    assert len(again.samples) == 32_000
    talk.hears(TextDelta(" one", 500))
    assert len(talk.commands) == 5


def test_options_that_change_all_the_time_leave_a_stream_time_to_come_forward() -> None:
    talk = Talk(OPENAI)
    talk.says(update())
    for i in range(100):
        talk.says(append(1280), update(delay=("high", "low")[i % 2]))
        talk.hears(TokenDecoded(32, i, 80 * i))
    assert sum(isinstance(command, Open) for command in talk.commands) < 10


@pytest.mark.parametrize(("every", "speed"), [(1, 1.5), (1, 2), (7, 1.2), (90, 1.1)])
def test_options_that_change_all_the_time_do_not_leave_a_stream_behind(
    every: int, speed: float
) -> None:
    """Options change with each, or each n-th audio token; decoding is little faster."""
    conversation = Conversation(served(), OPENAI)
    conversation.receive(update())
    n_sent = n_decoded = most = 0

    def follow(effects: list[Effect]) -> None:
        nonlocal n_sent, n_decoded
        for effect in effects:
            match effect:
                case Open():
                    n_sent = n_decoded = 0
                case PushAudio(samples):
                    n_sent += len(samples)
                case Finish():
                    follow(conversation.notice(Finished(0, 0)))
                case _:
                    pass

    for i in range(1500):
        follow(conversation.receive(json.dumps(append(1280))))
        if i % every == 0:
            delay = ("high", "low")[i // every % 2]
            follow(conversation.receive(update(delay=delay)))
        for _ in range(int((i + 1) * speed) - int(i * speed)):
            if n_decoded + 1280 <= n_sent:
                n_decoded += 1280
                follow(conversation.notice(TokenDecoded(32, 0, n_decoded // 16)))
        most = max(most, n_sent - n_decoded)
    assert most < 5 * 16_000


def test_the_end_of_one_stream_does_not_cut_the_next() -> None:
    conversation = Conversation(served(), OPENAI)
    conversation.receive(update())
    conversation.receive(json.dumps(append(16_000)))
    conversation.receive(update(delay="high"))
    conversation.quiet()
    assert Finish() in conversation.notice(Flushed(0))
    opened = conversation.receive(json.dumps(append(32_000)))
    assert isinstance(opened[0], Open)
    conversation.receive(update(delay="low"))
    for i in range(20):  # the last ids of the first
        assert conversation.notice(TokenDecoded(32, i, 1000)) == []
    conversation.notice(Finished(1000, 20))
    told = [conversation.notice(TokenDecoded(32, i, 80 * i)) for i in range(13)]
    assert not any(told[:12])
    assert any(isinstance(effect, Open) for effect in told[12])


def test_a_client_far_ahead_of_its_words_is_not_heard_again() -> None:
    talk = Talk(OPENAI)
    talk.says(update(), append(32_000))
    talk.hears(TextDelta(" one", 500))
    talk.says(update(delay="high"), *[append(32_000)] * 40)
    n = len(talk.commands)
    talk.hears(UtteranceEnd(100, 480, 960))
    assert len(talk.commands) == n
    talk.hears(*(TokenDecoded(32, i, 1000 * i) for i in range(80)))
    assert len(talk.commands) == n
    talk.hears(TokenDecoded(32, 80, 80_000))
    opened, again = talk.commands[-2:]
    assert isinstance(opened, Open)
    assert opened.options.delay_ms == 960
    assert isinstance(again, PushAudio)
    assert len(again.samples) <= 5 * 16_000


def test_a_stream_that_is_cut_says_finished_at_once(
    demo_checkpoint: Checkpoint, start: np.ndarray
) -> None:
    scheduler = Scheduler(demo_checkpoint, max_sessions=1)
    notices: list[Notice] = []
    slot = scheduler.open_slot(notices.extend)
    slot.submit(Open(served().options))
    slot.submit(PushAudio(start))
    slot.submit(Finish(is_cut=True))
    while slot.inbox:
        scheduler.tick()
    assert [type(notice) for notice in notices] == [Finished]
    assert (slot.waiting_ms, scheduler.n_streams) == (0, 0)
