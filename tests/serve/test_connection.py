"""Websockets over loopback: exact among others, killed at any moment, told the truth."""

import asyncio
import gc
import json
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import websockets.exceptions
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import ClientConnection, connect

from tests.serve.loopback import IDLE, PATIENCE_S, Loopback, said, serving, sound, until
from tests.sounds import speech_like
from voxmlx import Checkpoint, Session
from voxmlx.events import TextDelta, TokenDecoded
from voxmlx.serve.connection import Connection
from voxmlx.serve.conversation import Conversation
from voxmlx.serve.protocol import Command, Notice
from voxmlx.serve.slot import Slot
from voxmlx.serve.vllm_dialect import VllmDialect
from voxmlx.web.limits import Limits

FINAL = json.dumps({"type": "input_audio_buffer.commit", "final": True})
DELAYS_MS = (80, 160, 240, 480, 480, 960, 1200, 2400)


@pytest.fixture
def tiny_server(tiny_checkpoint: Checkpoint) -> Iterator[Loopback]:
    with serving(tiny_checkpoint) as server:
        yield server


def on_the_wire(samples: np.ndarray) -> np.ndarray:
    """As 16 bits say it."""
    rounded = np.round(samples * 32768).clip(-32768, 32767) / 32768
    return rounded.astype(np.float32)


def realtime(server: Loopback, **options: Any) -> Any:
    # No client is given up for being late itself, as it would be by its own clock.
    options = {"ping_interval": None, "max_queue": None} | options
    return connect(f"{server.ws}/v1/realtime", **options)


def alone(checkpoint: Checkpoint, samples: np.ndarray, delay_ms: int) -> list[Any]:
    session = Session(checkpoint, delay_ms=delay_ms)
    return session.push(samples) + session.finish()


def ids(events: list[Any]) -> list[int]:
    return [event.token_id for event in events if isinstance(event, TokenDecoded)]


def text(events: list[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Notice]]:
    """Session id -> what its stream has said; ids of tokens are in no protocol."""
    by_session: dict[str, list[Notice]] = {}
    tell = VllmDialect.notice

    def note(self: VllmDialect, notice: Notice) -> Any:
        by_session.setdefault(self.session_id, []).append(notice)
        return tell(self, notice)

    monkeypatch.setattr(VllmDialect, "notice", note)
    return by_session


def test_eight_clients_get_the_ids_that_each_gets_alone(
    server: Loopback,
    demo_checkpoint: Checkpoint,
    sample: np.ndarray,
    noted: dict[str, list[Notice]],
) -> None:
    streams = [
        sample[16_000 * i : 16_000 * i + 30_000 + 7_000 * i]
        for i in range(len(DELAYS_MS))
    ]

    def talk(i: int) -> tuple[str, str]:
        time.sleep(0.05 * i)
        with realtime(server) as websocket:
            session_id = json.loads(websocket.recv(timeout=PATIENCE_S))["id"]
            update = {"type": "session.update", "delay_ms": DELAYS_MS[i]}
            websocket.send(json.dumps(update))
            for message in sound(streams[i], piece=601 + 997 * i):
                websocket.send(message)
            websocket.send(FINAL)
            return session_id, said(websocket, "transcription.done")[-1]["text"]

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(talk, range(8)))
    for (session_id, got), samples, delay_ms in zip(
        told, streams, DELAYS_MS, strict=True
    ):
        # The wire has 16 bits; so has the sample.
        expected = alone(demo_checkpoint, samples, delay_ms)
        assert ids(noted[session_id]) == ids(expected)
        assert got == text(expected)


async def kill_one(
    server: Loopback, rng: random.Random, has_begun: Callable[[], bool] | None
) -> None:
    """Be a client that is gone at some moment, with or without a word.

    It sends sound and waits for streams that have begun, if it is told to.
    """
    websocket = await connect_async(f"{server.ws}/v1/realtime", close_timeout=0.1)
    messages = list(sound(speech_like(rng.randrange(1300, 5000), seed=1), piece=640))
    messages += [FINAL, *messages[:2]]
    least = 0 if has_begun is None else 1
    for message in messages[: rng.randrange(least, len(messages) + 1)]:
        await websocket.send(message)
    end = time.monotonic() + PATIENCE_S
    while has_begun is not None and not has_begun() and time.monotonic() < end:
        await asyncio.sleep(0.001)
    if rng.random() < 0.5:
        await asyncio.sleep(rng.random() * 0.02)
    if rng.random() < 0.3:
        await websocket.close()
    else:
        websocket.transport.abort()
    await websocket.wait_closed()


def stay(server: Loopback, samples: np.ndarray) -> str:
    """Be a client that talks at its ease, to the end; its session's id."""
    with realtime(server) as websocket:
        session_id = json.loads(websocket.recv(timeout=PATIENCE_S))["id"]
        for message in sound(samples, piece=400):
            websocket.send(message)
            time.sleep(0.02)
        websocket.send(FINAL)
        said(websocket, "transcription.done")
        return session_id


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Session]]:
    """Every session there has been."""
    sessions: list[weakref.ref[Session]] = []
    open_session = Session.__init__

    def note(self: Session, *args: Any, **kwargs: Any) -> None:
        open_session(self, *args, **kwargs)
        sessions.append(weakref.ref(self))

    monkeypatch.setattr(Session, "__init__", note)
    return sessions


def n_objects() -> int:
    """Of what there is for each client; others' tests may have left some."""
    kinds = (Connection, Conversation, Slot)
    # Not isinstance: it would ask objects of others what they want to be taken for.
    return sum(issubclass(type(one), kinds) for one in gc.get_objects())


def kill_a_hundred(server: Loopback, opened: list[weakref.ref[Session]]) -> None:
    """One after the other, four at a time; every other four once a stream is `opened`.

    A busy machine would have all of them gone before that.
    """
    rng = random.Random(11)

    async def kill() -> None:
        for i in range(25):
            n = len(opened) + 4
            has_begun = (lambda n=n: len(opened) >= n) if i % 2 else None
            await asyncio.gather(*(kill_one(server, rng, has_begun) for _ in range(4)))

    asyncio.run(kill())


def test_a_hundred_killed_clients_disturb_nobody_and_leave_nothing(
    tiny_server: Loopback,
    tiny_checkpoint: Checkpoint,
    noted: dict[str, list[Notice]],
    opened: list[weakref.ref[Session]],
) -> None:
    server, scheduler = tiny_server, tiny_server.scheduler
    # Threads of other tests may end meanwhile.
    threads = {*threading.enumerate()}
    sounds = [on_the_wire(speech_like(20_000 + 999 * i, seed=i)) for i in range(3)]
    alone_ids = [ids(alone(tiny_checkpoint, samples, 480)) for samples in sounds]

    def left() -> tuple[object, ...]:
        """What there is of a server that has nothing to do."""
        gc.collect()
        return (
            scheduler.n_slots,
            scheduler.n_streams,
            server.service.n_connections,
            server.tasks(),
            len({*threading.enumerate()} - threads),
            sum(session() is not None for session in opened),
            mx.get_active_memory(),
        )

    kill_a_hundred(server, opened)  # whatever is made once has been made
    nothing = (0, 0, 0, IDLE, 0, 0)
    until(lambda: left()[:6] == nothing)
    before, n_objects_before = left(), n_objects()
    n_before = len(opened)
    with ThreadPoolExecutor(3) as pool:
        staying = [pool.submit(stay, server, samples) for samples in sounds]
        kill_a_hundred(server, opened)
        session_ids = [client.result(PATIENCE_S) for client in staying]
    assert len(opened) > n_before + 30, "most were gone before their streams began"
    for session_id, expected in zip(session_ids, alone_ids, strict=True):
        assert ids(noted[session_id]) == expected
    # A cycle may become garbage just after a collection.
    until(lambda: left() == before and n_objects() <= n_objects_before)


def test_nobody_is_let_in_above_the_limit(tiny_checkpoint: Checkpoint) -> None:
    with serving(tiny_checkpoint, max_sessions=2) as server:
        with realtime(server) as first, realtime(server) as second:
            for websocket in (first, second):
                assert json.loads(websocket.recv())["type"] == "session.created"
            with realtime(server) as third:
                error = json.loads(third.recv(timeout=PATIENCE_S))
                assert error["type"] == "error"
                assert error["code"] == "at_capacity"
                with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                    third.recv(timeout=PATIENCE_S)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1013
        until(lambda: server.scheduler.n_slots == 0)
        with realtime(server) as fourth:
            assert json.loads(fourth.recv())["type"] == "session.created"


def close_code(websocket: ClientConnection) -> int:
    try:
        while True:
            websocket.recv(timeout=PATIENCE_S)
    except websockets.exceptions.ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd is not None else 1006


def test_a_client_that_says_nothing_is_let_go(tiny_checkpoint: Checkpoint) -> None:
    limits = Limits(idle_s=0.3)
    with serving(tiny_checkpoint, limits=limits) as server, realtime(server) as idle:
        assert json.loads(idle.recv())["type"] == "session.created"
        assert json.loads(idle.recv(timeout=PATIENCE_S))["code"] == "idle"
        assert close_code(idle) == 1008
        until(lambda: server.scheduler.n_slots == 0)


def test_the_last_words_come_though_the_client_stops_and_stays(
    tiny_checkpoint: Checkpoint,
) -> None:
    limits = Limits(quiet_s=0.3)
    samples = on_the_wire(speech_like(16_100, seed=4))
    expected = Session(tiny_checkpoint)
    events = expected.push(samples) + expected.flush()
    text = "".join(e.text for e in events if isinstance(e, TextDelta))
    told = ""
    with serving(tiny_checkpoint, limits=limits) as server, realtime(server) as silent:
        # All at once: a pause in which we stand still would be one of the client.
        for message in sound(samples, piece=len(samples)):
            silent.send(message)
        while told != text:
            message = json.loads(silent.recv(timeout=PATIENCE_S))
            assert message["type"] in ("session.created", "transcription.delta")
            told += message.get("delta", "")
            assert text.startswith(told)


def test_a_message_that_is_too_long_ends_its_own_connection(
    tiny_checkpoint: Checkpoint,
) -> None:
    limits = Limits(max_message_bytes=10_000)
    with serving(tiny_checkpoint, limits=limits) as server:
        with realtime(server) as other, realtime(server) as websocket:
            websocket.send("x" * 20_000)
            assert close_code(websocket) == 1009
            other.send("no json")
            assert said(other, "error")[-1]["code"] == "invalid_json"
        until(lambda: server.scheduler.n_slots == 0)


def test_a_client_that_does_not_read_is_given_up_and_delays_nobody(
    tiny_checkpoint: Checkpoint,
) -> None:
    limits = Limits(max_unread_bytes=20_000)
    samples = speech_like(9_000, seed=2)
    with serving(tiny_checkpoint, limits=limits) as server:
        asyncio.run(send_without_reading(server))
        with realtime(server) as websocket:
            for message in sound(samples):
                websocket.send(message)
            websocket.send(FINAL)
            said(websocket, "transcription.done")
        until(lambda: server.scheduler.n_slots == 0)


async def send_without_reading(server: Loopback) -> None:
    """Ask for errors until the server has enough of it."""
    # Small buffers on our side fill soon; then the server's own.
    async with connect_async(
        f"{server.ws}/v1/realtime", max_queue=1, close_timeout=0.1, ping_interval=None
    ) as websocket:
        wrong = json.dumps({"type": "x" * 60, "event_id": "y" * 4000})
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await websocket.send(wrong)
        except websockets.exceptions.ConnectionClosed:
            return


def test_sound_that_comes_too_fast_is_not_read_and_none_is_lost(
    tiny_checkpoint: Checkpoint,
) -> None:
    limits = Limits(max_waiting_ms=500)
    samples = on_the_wire(speech_like(160_000, seed=5))
    with serving(tiny_checkpoint, limits=limits) as server:
        most = [0]

        def send(websocket: ClientConnection) -> None:
            for message in sound(samples, piece=1600):
                websocket.send(message)
                most[0] = max(most[0], server.scheduler.waiting_ms)
            websocket.send(FINAL)

        with realtime(server) as websocket, ThreadPoolExecutor(1) as pool:
            sending = pool.submit(send, websocket)
            told = said(websocket, "transcription.done")
            sending.result(PATIENCE_S)
    whole = alone(tiny_checkpoint, samples, 480)
    assert told[-1]["text"] == text(whole)
    assert most[0] <= 500 + 2 * 100  # one message more, and one on its way


def test_streams_that_are_asked_for_too_fast_wait_at_their_client(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(max_waiting_ms=3_000)
    n_waiting: list[int] = []
    submit = Slot.submit

    def note(slot: Slot, command: Command) -> None:
        n_waiting.append(len(slot.inbox) + 1)
        submit(slot, command)

    monkeypatch.setattr(Slot, "submit", note)
    with serving(tiny_checkpoint, limits=limits) as server, realtime(server) as one:
        for _ in range(60):
            one.send(FINAL)
        for _ in range(60):
            said(one, "transcription.done")
    # Two commands each, of 1.6 s.
    assert len(n_waiting) >= 120
    assert max(n_waiting) <= 2 * (3_000 // 1_600 + 1)


def test_a_server_that_is_ended_brings_out_the_last_words(
    demo_checkpoint: Checkpoint, sample: np.ndarray
) -> None:
    samples = sample[: 3 * 16_000]
    expected = text(alone(demo_checkpoint, samples, 480))
    with serving(demo_checkpoint) as ending, realtime(ending) as websocket:
        assert json.loads(websocket.recv())["type"] == "session.created"
        for message in sound(samples):
            websocket.send(message)
        websocket.send("is all of it there?")
        said(websocket, "error")
        ending.end()
        told = said(websocket, "transcription.done")
        assert told[-1]["text"] == expected
        assert close_code(websocket) == 1001


# ------------------------------------------------------------- access


def refusal(server: Loopback, **options: Any) -> int:
    with (
        pytest.raises(websockets.exceptions.InvalidStatus) as caught,
        realtime(server, **options),
    ):
        pass
    assert json.loads(caught.value.response.body or b"")["error"]["message"]
    return caught.value.response.status_code


def test_pages_of_strangers_may_not_use_the_server(tiny_checkpoint: Checkpoint) -> None:
    origins = ("https://notes.example",)
    with serving(tiny_checkpoint, origins=origins) as server:
        assert refusal(server, origin="https://evil.example") == 403
        assert refusal(server, origin="null") == 403
        assert refusal(server, origin=f"https://127.0.0.1:{server.port}.evil.ex") == 403
        for origin in (None, server.http, "https://notes.example"):
            with realtime(server, origin=origin) as websocket:
                assert json.loads(websocket.recv())["type"] == "session.created"


def test_a_name_that_a_page_made_up_is_not_answered(tiny_server: Loopback) -> None:
    request = [
        "GET /v1/realtime HTTP/1.1",
        "Host: rebound.example",
        "Origin: http://rebound.example",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    address = ("127.0.0.1", tiny_server.port)
    with socket.create_connection(address, PATIENCE_S) as plain:
        plain.sendall("\r\n".join([*request, "", ""]).encode())
        assert plain.recv(4096).startswith(b"HTTP/1.1 421")


def test_a_key_is_asked_for_and_a_browser_can_send_it(
    tiny_checkpoint: Checkpoint,
) -> None:
    with serving(tiny_checkpoint, keys=("secret", "other")) as server:
        assert refusal(server) == 401
        wrong = {"Authorization": "Bearer secre"}
        assert refusal(server, additional_headers=wrong) == 401
        right = {"Authorization": "Bearer other"}
        with realtime(server, additional_headers=right) as websocket:
            assert json.loads(websocket.recv())["type"] == "session.created"
        protocols = ["realtime", "openai-insecure-api-key.secret"]
        with realtime(server, subprotocols=protocols) as websocket:
            assert websocket.subprotocol == "realtime"
            assert json.loads(websocket.recv())["type"] == "session.created"
