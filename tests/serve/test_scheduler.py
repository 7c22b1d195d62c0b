"""Streams of many clients on one thread: exact, undisturbed, and gone when they go."""

import gc
import random
import re
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.utils
import numpy as np
import pytest

from tests.poison import poisoned_once
from tests.serve.scheduled import TIMEOUT_S, Client, Steps, alone, events
from tests.sounds import speech_like
from voxmlx import Checkpoint, Session, batch, load
from voxmlx.batch import MAX_TOKENS_PER_STEP, Batch
from voxmlx.decoding.hotwords import HotwordTrie
from voxmlx.decoding.loop import MAX_AUDIO_TOKENS_PER_STEP, decode_together
from voxmlx.decoding.network_requests import DecodeRequest
from voxmlx.decoding.rules import GUARDS
from voxmlx.errors import RequestError
from voxmlx.events import Event, Finished, Recovered, TokenDecoded
from voxmlx.model.voxtral import VoxtralRealtime
from voxmlx.serve import openings
from voxmlx.serve import scheduler as scheduler_module
from voxmlx.serve.file_share import FileShare
from voxmlx.serve.metrics import Metrics
from voxmlx.serve.protocol import (
    Failed,
    Finish,
    Flush,
    Flushed,
    Lagging,
    Open,
    PushAudio,
)
from voxmlx.serve.scheduler import Scheduler
from voxmlx.serve.stream_options import StreamOptions


@pytest.fixture
def scheduler(tiny_checkpoint: Checkpoint) -> Iterator[Scheduler]:
    scheduler = Scheduler(tiny_checkpoint, max_sessions=16)
    scheduler.start()
    yield scheduler
    scheduler.stop()


def settled(scheduler: Scheduler) -> None:
    """Wait until the thread has seen all that happened so far."""
    client = Client(scheduler)
    client.slot.submit(Finish())
    client.until(Finished)
    client.slot.release()


def test_clients_are_told_exactly_what_each_says_alone(
    scheduler: Scheduler, tiny_checkpoint: Checkpoint
) -> None:
    delays = (80, 160, 240, 480, 480, 960, 1200, 2400)
    sounds = [speech_like(3_000 + 4_321 * i, seed=i) for i in range(8)]
    clients: list[Client] = []
    for i, (sound, delay_ms) in enumerate(zip(sounds, delays, strict=True)):
        clients.append(Client(scheduler, StreamOptions(delay_ms=delay_ms)))
        clients[-1].says(sound, piece=701 + 997 * i)
        clients[-1].slot.submit(Finish())
    for client, sound, delay_ms in zip(clients, sounds, delays, strict=True):
        told = events(client.until(Finished))
        assert told == alone(tiny_checkpoint, sound, delay_ms=delay_ms)


def test_one_stream_follows_another_in_a_seat(
    scheduler: Scheduler, tiny_checkpoint: Checkpoint
) -> None:
    client = Client(scheduler)
    sounds = [speech_like(n, seed=n) for n in (9_000, 5_000)]
    client.says(sounds[0])
    client.slot.submit(Finish())
    client.slot.submit(Open(StreamOptions(delay_ms=80)))
    client.says(sounds[1])
    client.slot.submit(Finish())
    first, second = events(client.until(Finished)), events(client.until(Finished))
    assert first == alone(tiny_checkpoint, sounds[0])
    assert second == alone(tiny_checkpoint, sounds[1], delay_ms=80)


def test_a_flush_is_done_before_what_comes_after_it_is_heard(
    scheduler: Scheduler, tiny_checkpoint: Checkpoint
) -> None:
    sound = speech_like(20_000, seed=3)
    client = Client(scheduler)
    client.says(sound[:9_000])
    client.slot.submit(Flush())
    client.says(sound[9_000:])
    client.slot.submit(Finish())
    before, after = client.until(Flushed), client.until(Finished)
    session = Session(tiny_checkpoint)
    assert events(before) == session.push(sound[:9_000]) + session.flush()
    assert events(after) == session.push(sound[9_000:]) + session.finish()
    assert before[-1] == Flushed(17 * 80)  # to a whole token, delay, 0.8 s


def test_nobody_gets_a_seat_that_is_not_there(scheduler: Scheduler) -> None:
    slots = [scheduler.open_slot(lambda _: None) for _ in range(16)]
    with pytest.raises(RequestError, match="all 16 sessions") as caught:
        scheduler.open_slot(lambda _: None)
    assert caught.value.status == 503
    slots[3].release()
    slots[3].release()
    scheduler.open_slot(lambda _: None)
    scheduler.drain()
    slots[0].release()
    with pytest.raises(RequestError, match="shutting down"):
        scheduler.open_slot(lambda _: None)


def test_a_hot_word_nobody_can_write_ends_only_its_own_stream(
    scheduler: Scheduler, tiny_checkpoint: Checkpoint
) -> None:
    sound = speech_like(9_000, seed=1)
    good, bad = Client(scheduler), Client(scheduler, StreamOptions(hotwords=("",)))
    for client in (good, bad):
        client.says(sound)
        client.slot.submit(Finish())
    assert isinstance(bad.until(Failed)[-1], Failed)
    assert events(good.until(Finished)) == alone(tiny_checkpoint, sound)
    assert scheduler.n_slots == 1


def test_a_step_that_fails_is_outlived(
    scheduler: Scheduler,
    tiny_checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: Batch) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "step", fail)
        clients = [Client(scheduler) for _ in range(3)]
        for client in clients:
            client.says(speech_like(9_000, seed=1))
        for client in clients:
            failed = client.until(Failed)[-1]
            assert isinstance(failed, Failed)
            assert failed.error.status == 500
    sound = speech_like(5_000, seed=2)
    client = Client(scheduler)
    client.says(sound)
    client.slot.submit(Finish())
    assert events(client.until(Finished)) == alone(tiny_checkpoint, sound)
    client.slot.release()
    assert scheduler.n_slots == 0


def test_a_command_that_fails_is_outlived(
    scheduler: Scheduler, tiny_checkpoint: Checkpoint
) -> None:
    client = Client(scheduler)
    client.slot.submit(Finish())
    client.until(Finished)
    client.slot.submit(PushAudio(speech_like(2_000)))  # of no stream: our mistake
    failed = client.until(Failed)[-1]
    assert isinstance(failed, Failed)
    assert failed.error.status == 500
    sound = speech_like(5_000, seed=2)
    other = Client(scheduler)
    other.says(sound)
    other.slot.submit(Finish())
    assert events(other.until(Finished)) == alone(tiny_checkpoint, sound)


def test_hot_words_that_are_hints_are_left_out_where_nobody_can_write_them(
    scheduler: Scheduler, tiny_checkpoint: Checkpoint
) -> None:
    hints = ("", "the ring", "x" * 4000)
    options = StreamOptions(hotwords=hints, hotwords_are_hints=True)
    sound = speech_like(9_000, seed=3)
    client = Client(scheduler, options)
    client.says(sound)
    client.slot.submit(Finish())
    told = events(client.until(Finished))
    assert told == alone(tiny_checkpoint, sound, hotwords=["the ring"])


def test_lag_is_told_and_sound_that_waits_is_counted(scheduler: Scheduler) -> None:
    client = Client(scheduler)
    client.says(speech_like(48_000, seed=1))
    assert 0 < client.slot.waiting_ms <= 3_100
    client.slot.submit(Finish())
    lags = [n for n in client.until(Finished) if isinstance(n, Lagging)]
    assert lags
    assert all(lag.lag_ms >= 0 for lag in lags)
    assert client.slot.waiting_ms == 0


def test_a_tick_of_eight_clients_reads_each_weight_once(
    tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_checkpoint.model
    # As the command starts it, but stepped by hand.
    scheduler = Scheduler(tiny_checkpoint, max_sessions=8, guards=tuple(GUARDS))
    delays = (80, 160, 240, 480, 480, 960, 1200, 2400)
    clients = [Client(scheduler, StreamOptions(delay_ms=ms)) for ms in delays]
    for i, client in enumerate(clients):  # each somewhere else in its stream
        client.says(speech_like(60_000 + 9_000 * i, seed=i))
    scheduler.tick()
    while scheduler.is_due:
        scheduler.tick()
    path, n_together = tmp_path / "step.dot", list[int]()
    weights = dict(mlx.utils.tree_flatten(model.parameters()))

    def traced(model: VoxtralRealtime, decodings: Sequence[DecodeRequest]) -> None:
        """Record what is still to be computed, before anybody asks for it."""
        decode_together(model, decodings)
        n_together.append(len(decodings))
        tokens = [decoding.state.token for decoding in decodings]
        mx.export_to_dot(str(path), *tokens, **weights)

    monkeypatch.setattr(mx, "async_eval", lambda *_: None)
    monkeypatch.setattr(batch, "decode_together", traced)
    for client in clients:
        client.says(speech_like(1280, seed=1))
    scheduler.tick()
    assert n_together == [8]
    uses = Counter(re.findall(r'^"(.+)" -> ', path.read_text(), re.MULTILINE))
    for name, array in weights.items():
        if array.ndim == 1 or ".ada." in name:
            continue  # `ada` is folded into norms once per stream
        # The embedding is tied: looked up, and the last product.
        assert uses[name] == (2 if name == "decoder.embedding.weight" else 1), name


def kill_one(scheduler: Scheduler, rng: random.Random, *, is_decoded: bool) -> None:
    victim = Client(scheduler, StreamOptions(delay_ms=rng.choice([80, 480, 2400])))
    victim.says(speech_like(rng.randrange(1300, 4000), seed=1))
    if rng.random() < 0.3:
        victim.slot.submit(Flush())
    if rng.random() < 0.3:
        victim.slot.submit(Finish())
    while is_decoded and victim.slot.stream is None and victim.notices.empty():
        time.sleep(0.001)
    victim.slot.release()
    victim.slot.submit(PushAudio(np.zeros(1280, np.float32)))  # its last words


def all_to_the_end(
    staying: list[Client], sounds: list[np.ndarray], expected: list[list[Event]]
) -> None:
    for client, sound, whole in zip(staying, sounds, expected, strict=True):
        client.slot.submit(PushAudio(sound[12_000:]))
        client.slot.submit(Finish())
        assert events(client.until(Finished)) == whole
        client.slot.release()


def test_a_hundred_killed_clients_disturb_nobody_and_leave_nothing(
    scheduler: Scheduler, tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[weakref.ref[Session]] = []
    opened = Session.__init__

    def noted(self: Session, *args: Any, **kwargs: Any) -> None:
        opened(self, *args, **kwargs)
        sessions.append(weakref.ref(self))

    rng = random.Random(7)
    sounds = [speech_like(12_000 + 999 * i, seed=i) for i in range(4)]
    expected = [alone(tiny_checkpoint, sound) for sound in sounds]
    monkeypatch.setattr(Session, "__init__", noted)
    threads = {*threading.enumerate()}
    staying = [Client(scheduler) for _ in sounds]
    for i in range(100):
        for client, sound in zip(staying, sounds, strict=True):
            client.slot.submit(PushAudio(sound[i * 120 : (i + 1) * 120]))
        kill_one(scheduler, rng, is_decoded=i % 2 == 1)
    all_to_the_end(staying, sounds, expected)
    settled(scheduler)
    assert (scheduler.n_slots, scheduler.n_streams) == (0, 0)
    assert {*threading.enumerate()} <= threads
    staying.clear()
    gc.collect()
    # `settled` had the last one; MLX may still hold on to the graph of its step.
    assert sum(session() is not None for session in sessions[:-1]) == 0
    assert len(sessions) >= 50


def test_a_stream_that_recovers_is_counted_and_goes_on(
    tiny_checkpoint: Checkpoint,
) -> None:
    metrics = Metrics()
    scheduler = Scheduler(tiny_checkpoint, max_sessions=2, metrics=metrics)
    scheduler.start()
    sound = speech_like(30_000, seed=3)
    client = Client(scheduler)
    try:
        with poisoned_once(tiny_checkpoint.model, "decoder 0", float("nan"), 0):
            client.says(sound)
            client.slot.submit(Finish())
            told = events(client.until(Finished))
    finally:
        scheduler.stop()
    # The id that was decoded anew says so; all else is what a session alone says.
    said = [
        replace(e, recovered=None) if isinstance(e, TokenDecoded) else e
        for e in told
        if not isinstance(e, Recovered)
    ]
    assert said == alone(tiny_checkpoint, sound)
    assert 'voxmlx_recoveries_total{cause="decoder"} 1.0' in metrics.text().decode()


# ------------------------------------------------------------- live first


def test_live_streams_are_stepped_before_files(steps: Steps) -> None:
    file = Client(steps.scheduler, kind="file")
    file.says(speech_like(160_000, seed=1))
    live = Client(steps.scheduler)
    assert steps.tick(3) == ["file"] * 3
    live.says_at_once(speech_like(20 * 1280, seed=2))
    kinds = steps.tick(30)
    n_live = kinds.count("live")
    assert n_live >= 2
    assert kinds == ["live"] * n_live + ["file"] * (30 - n_live)
    assert steps.n_lags > 0


def test_live_sound_never_waits_for_a_second_pass_of_uploads(steps: Steps) -> None:
    """Whenever it comes, the tick after is its own: counted, so no clock matters."""
    files = [Client(steps.scheduler, kind="file") for _ in range(4)]
    for i, file in enumerate(files):
        file.says(speech_like(320_000, seed=i))
    live = Client(steps.scheduler)
    rng = random.Random(0)
    n_file_passes = 0
    for i in range(40):
        live.says_at_once(speech_like(1280, seed=i))
        steps.now += 0.08
        first, *others = steps.tick(1 + rng.randrange(5))
        if i:  # the first token is not whole: it needs some of the next
            assert first == "live", i
            assert "live" not in others
        n_file_passes += others.count("file")
    assert n_file_passes > 20, "uploads had the rest"


def test_passes_of_uploads_are_shorter_while_a_live_client_is_there(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    step = Batch.step

    def noted(self: Batch, sessions: Any = None, *, max_tokens: int) -> Any:
        sizes.append(max_tokens)
        return step(self, sessions, max_tokens=max_tokens)

    monkeypatch.setattr(Batch, "step", noted)
    file = Client(steps.scheduler, kind="file")
    file.says(speech_like(320_000, seed=1))
    assert steps.tick(2) == ["file"] * 2
    live = Client(steps.scheduler)
    assert steps.tick(2) == ["file"] * 2
    live.slot.release()
    assert steps.tick(1) == ["file"]
    alone, beside = MAX_AUDIO_TOKENS_PER_STEP, MAX_TOKENS_PER_STEP
    assert sizes == [alone, alone, beside, beside, alone]
    assert beside < alone


def test_a_file_that_waits_long_gets_a_pass_now_and_then(steps: Steps) -> None:
    file, live = Client(steps.scheduler, kind="file"), Client(steps.scheduler)
    for client in (file, live):
        client.says(speech_like(160_000, seed=1))
    steps.now = 100.0
    steps.tick()
    assert steps.tick(5) == ["live"] * 5
    steps.now += 2.5
    assert steps.tick(3) == ["file", "live", "live"]


def says_at_its_pace(
    steps: Steps, client: Client, sound: np.ndarray, piece: int
) -> None:
    """The client's messages as it speaks; the last one has just been stepped."""
    for start in range(0, len(sound), piece):
        client.says(sound[start : start + piece], piece)
        steps.now += piece / 16_000
        while "live" in steps.tick():
            pass
    steps.now -= piece / 16_000


@pytest.mark.parametrize("n_together", [1, 4])
def test_a_token_is_expected_with_the_message_that_makes_it_whole(
    steps: Steps, n_together: int
) -> None:
    live = Client(steps.scheduler)
    # Forty milliseconds: a token that lacks 2.5 ms is whole with the next of them.
    says_at_its_pace(steps, live, speech_like(8 * 1280, seed=2), 640)
    (slot,) = steps.scheduler.slots
    assert slot.stream is not None
    assert slot.stream.session.samples_wanted == 40
    for _ in range(3):
        steps.now += 0.04
        live.says(np.zeros(640, np.float32), 640 // n_together)
        steps.tick(3)
        wanted_s = slot.stream.session.samples_wanted / 16_000
        assert slot.stream.expected_at == pytest.approx(
            steps.now + (0.04 if wanted_s < 0.04 else 0.08)
        )


def test_tiny_messages_are_no_burst_that_goes_on_for_ever(steps: Steps) -> None:
    live = Client(steps.scheduler)
    says_at_its_pace(steps, live, speech_like(3 * 1280, seed=2), 16)
    (slot,) = steps.scheduler.slots
    assert slot.stream is not None
    assert slot.stream.expected_at is not None
    wanted_s = slot.stream.session.samples_wanted / 16_000
    assert slot.stream.expected_at - steps.now == pytest.approx(wanted_s, abs=0.006)


def test_what_was_freed_is_given_back_once_nobody_has_been_there_for_a_second(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back_at: list[float] = []
    monkeypatch.setattr(
        scheduler_module, "give_back_memory", lambda: given_back_at.append(steps.now)
    )
    for until in (0.9, 3.0):
        client = Client(steps.scheduler)
        client.slot.submit(Finish())
        steps.tick_until_finished(client)
        client.slot.release()
        steps.tick()
        while steps.now < until:
            assert steps.scheduler.is_due is (steps.now >= 1.9 and not given_back_at)
            steps.tick()
            steps.now = round(steps.now + 0.1, 3)
    assert given_back_at == [1.9]


def test_a_pass_for_files_does_not_begin_where_live_sound_is_expected(
    steps: Steps,
) -> None:
    file, live = Client(steps.scheduler, kind="file"), Client(steps.scheduler)
    file.says(speech_like(320_000, seed=1))
    says_at_its_pace(steps, live, speech_like(8 * 1280 + 200, seed=2), 200)
    (stream,) = [s.stream for s in steps.scheduler.slots if s.kind == "live"]
    assert stream is not None
    whole_at = stream.expected_at
    assert whole_at is not None
    assert steps.now + 0.05 < whole_at <= steps.now + 0.09
    steps.file_pass_s = 0.012
    assert steps.tick() == ["file"]
    steps.file_pass_s = 0.0
    expected = {-0.02: ["file"], -0.01: [], 0.01: [], 0.04: ["file"]}
    for before, kinds in expected.items():
        steps.now = whole_at + before
        assert steps.tick() == kinds, before
    steps.now = whole_at + 0.01
    live.says(speech_like(1280, seed=2))
    assert steps.tick() == ["live"]


@pytest.mark.parametrize(
    ("asked", "delay_ms", "window"),
    [({"delay_ms": 1200}, 1200, None), ({"draft_delay_ms": 240}, 240, 1000)],
)
def test_a_delay_that_is_new_holds_up_nobody(
    tiny_checkpoint_dir: Path, asked: dict[str, Any], delay_ms: int, window: int | None
) -> None:
    steps = Steps(load(tiny_checkpoint_dir, "float32"))
    steps.checkpoint.model.open_state()  # as the start does
    live = Client(steps.scheduler)
    live.says(speech_like(1280, seed=2))
    steps.tick(4)
    model = steps.checkpoint.model
    assert not model.is_prepared(delay_ms, window=window)
    new = Client(steps.scheduler, StreamOptions(**asked))
    new.says(speech_like(9_000, seed=3))
    n_between = 0
    while new.slot.stream is None:
        live.says(speech_like(1280, seed=2))
        assert steps.tick() == ["live"], "it waits for one pass at most"
        steps.tick()
        n_between += 1
    assert n_between >= 4
    assert model.is_prepared(delay_ms, window=window)
    new.slot.submit(Finish())
    steps.tick_until_finished(new)
    expected = alone(steps.checkpoint, speech_like(9_000, seed=3), **asked)
    assert events(new.until(Finished)) == expected


def test_many_hot_words_hold_up_nobody(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()

    def slow(*arguments: Any) -> HotwordTrie:
        assert may_go_on.wait(TIMEOUT_S)
        return HotwordTrie(*arguments)

    monkeypatch.setattr(openings, "HotwordTrie", slow)
    options = StreamOptions(hotwords=("the ring",))
    picky, other = Client(steps.scheduler, options), Client(steps.scheduler)
    for client in (picky, other):
        client.says(speech_like(9_000, seed=3))
        client.slot.submit(Finish())
    steps.tick_until_finished(other)
    assert picky.slot.stream is None
    may_go_on.set()
    steps.tick_until_finished(picky)
    expected = alone(
        steps.checkpoint, speech_like(9_000, seed=3), hotwords=["the ring"]
    )
    assert events(picky.until(Finished)) == expected


def test_hot_words_that_come_again_are_made_once(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assistants send all names of a home with every command."""
    n_made = 0

    def counted(*arguments: Any) -> HotwordTrie:
        nonlocal n_made
        n_made += 1
        return HotwordTrie(*arguments)

    monkeypatch.setattr(openings, "HotwordTrie", counted)

    def finish(*hotwords: str) -> list[Event]:
        client = Client(steps.scheduler, StreamOptions(hotwords=hotwords))
        client.says(speech_like(9_000, seed=3))
        client.slot.submit(Finish())
        steps.tick_until_finished(client)
        client.slot.release()
        return events(client.until(Finished))

    first = finish("the ring")
    assert finish("the ring") == first
    assert n_made == 1
    for i in range(12):
        finish(f"ring {i}")
    assert n_made == 13
    finish("ring 11")
    assert n_made == 13
    finish("the ring")  # so many lists are not kept
    assert n_made == 14


def test_files_are_decoded_in_blocks_with_speculation_and_say_the_same(
    steps: Steps, tiny_checkpoint: Checkpoint
) -> None:
    sounds = [speech_like(150_000 + 999 * i, seed=i) for i in range(3)]
    clients = [Client(steps.scheduler, kind="file") for _ in sounds]
    for client, sound in zip(clients, sounds, strict=True):
        client.says(sound)
        client.slot.submit(Finish())
    steps.tick()
    streams = [slot.stream for slot in steps.scheduler.slots]
    n_ids = sum(len(sound) // 1280 for sound in sounds)
    n_ticks = 1
    while steps.scheduler.is_due:
        steps.tick()
        n_ticks += 1
    for client, sound in zip(clients, sounds, strict=True):
        assert events(client.until(Finished)) == alone(tiny_checkpoint, sound)
    speculations = [one.session.speculation for one in streams if one is not None]
    assert len(speculations) == len(sounds)
    assert all(one is not None and one.n_passes > 0 for one in speculations)
    assert n_ticks < n_ids / 2, "three files share a pass"
    assert steps.n_lags == 0


def test_no_more_files_than_allowed_take_slots(tiny_checkpoint: Checkpoint) -> None:
    scheduler = Scheduler(tiny_checkpoint, max_sessions=4, max_files=2)
    files = [scheduler.open_slot(lambda _: None, "file") for _ in range(2)]
    with pytest.raises(RequestError, match="--max-uploads") as caught:
        scheduler.open_slot(lambda _: None, "file")
    assert (caught.value.status, caught.value.code) == (503, "at_capacity")
    scheduler.open_slot(lambda _: None)
    files[0].release()
    scheduler.open_slot(lambda _: None, "file")


def test_passes_for_files_are_as_long_as_they_may_be() -> None:
    share = FileShare(pass_s=0.02)
    due: list[Any] = ["a", "b", "c", "d", "e"]
    turns: list[list[Any]] = []
    for _ in range(6):
        turns.append(share.choose(due))
        share.passed(0.004 * len(turns[-1]))  # so that five take just too long
    assert turns[:3] == [["a"], ["b", "c"], ["d", "e", "a"]]
    assert {len(turn) for turn in turns[2:]} == {3}
    share.passed(1.0)
    assert len(share.choose(due)) == 1
