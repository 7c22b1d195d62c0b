"""A session moves between threads, one call at a time, and never hangs after a fork."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.evaluated import n_lazy_operations
from tests.poison import poisoned_once
from tests.sounds import speech_like
from voxmlx import Checkpoint, Event, Session, SessionError, TokenDecoded, load

SOUND = speech_like(3 * 16_000 + 777, seed=11)
OPTIONS: tuple[dict[str, Any], ...] = (
    {"confidence": True, "alternatives": 2},
    {"guards": ("pad_run", "repetition")},
    {"hotwords": ["the ring", "you"], "hotword_boost": 12.0},
    {"speculate": True},
    {"kv_bits": 8},
)
# A sound of a microphone, and backlogs of many audio tokens.
SIZES = (1280, 700, 9000, 3, 1280, 5000, 160, 20_000)


def pieces(sound: np.ndarray) -> Iterator[np.ndarray]:
    start = 0
    for i in range(len(sound)):
        if start >= len(sound):
            return
        yield sound[start : start + SIZES[i % len(SIZES)]]
        start += SIZES[i % len(SIZES)]


def whole(checkpoint: Checkpoint, **options: Any) -> list[Event]:
    """The events of one thread; flushed once on the way."""
    session = Session(checkpoint, **options)
    events = [event for piece in pieces(SOUND) for event in session.push(piece)]
    return events + session.flush() + session.push(SOUND) + session.finish()


@pytest.mark.parametrize("options", OPTIONS)
def test_eight_threads_in_turn_give_the_events_of_one(
    tiny_checkpoint_dir: Path, options: dict[str, Any]
) -> None:
    expected = whole(load(tiny_checkpoint_dir, "float32"), **options)
    checkpoint = load(tiny_checkpoint_dir, "float32")
    session = Session(checkpoint, **options)
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(8)]
        calls: list[Any] = [(session.push, piece) for piece in pieces(SOUND)]
        calls += [(session.flush,), (session.push, SOUND), (session.finish,)]
        assert len(calls) > len(pools)
        events: list[Event] = []
        for i, call in enumerate(calls):
            events += pools[i % len(pools)].submit(*call).result()
    assert events == expected


def n_ids(events: Sequence[Event]) -> int:
    return sum(isinstance(event, TokenDecoded) for event in events)


@pytest.mark.parametrize("options", OPTIONS)
def test_nothing_of_a_state_is_lazy_when_a_call_returns(
    tiny_checkpoint: Checkpoint, tmp_path: Path, options: dict[str, Any]
) -> None:
    session, plain = Session(tiny_checkpoint, **options), Session(tiny_checkpoint)
    n_held, n_trials = 0, 0

    def check() -> None:
        assert n_lazy_operations(session.arrays(), tmp_path) == 0

    check()
    for piece in pieces(SOUND):
        n_held += n_ids(plain.push(piece)) - n_ids(session.push(piece))
        n_trials += n_held > 0
        check()
    assert (n_trials > 0) == ("hotwords" in options)
    session.flush()
    check()
    with poisoned_once(tiny_checkpoint.model, "decoder 1", np.nan, 0):
        session.push(SOUND)
    check()
    session.finish()
    check()


def test_loaded_weights_are_not_lazy(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    parameters: Any = load(tiny_checkpoint_dir, "float32").model.parameters()
    assert n_lazy_operations(parameters, tmp_path) == 0
    assert n_lazy_operations([mx.ones(3) + 1], tmp_path) > 0


def test_a_second_call_at_once_is_refused_and_the_session_stays_whole(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(tiny_checkpoint)
    session = Session(tiny_checkpoint)
    is_inside, may_go_on = threading.Event(), threading.Event()
    encode = type(tiny_checkpoint.model).encode

    def waiting(*arguments: Any) -> mx.array:
        is_inside.set()
        assert may_go_on.wait(300)
        return encode(*arguments)

    first, *others = pieces(SOUND)
    events = session.push(first[:100])
    monkeypatch.setattr(type(tiny_checkpoint.model), "encode", waiting)
    with ThreadPoolExecutor(1) as pool:
        pushed = pool.submit(session.push, np.concatenate([first[100:], others[0]]))
        assert is_inside.wait(300)
        for call in (lambda: session.push(SOUND), session.flush, session.finish):
            with pytest.raises(SessionError, match=r"voxmlx\.stream"):
                call()
        may_go_on.set()
        events += pushed.result()
    for piece in others[1:]:
        events += session.push(piece)
    events += session.flush() + session.push(SOUND) + session.finish()
    assert events == expected


def test_sessions_of_one_checkpoint_may_be_pushed_at_the_same_time(
    tiny_checkpoint_dir: Path,
) -> None:
    checkpoint = load(tiny_checkpoint_dir, "float32")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: whole(checkpoint), range(4)))
    assert found == [whole(checkpoint)] * 4


FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy, voxmlx

def attempt(call):
    try:
        call()
    except voxmlx.SessionError as error:
        return str(error)
    return "works"

def child(*calls):
    sys.stdout.flush()
    if os.fork() == 0:
        for call in calls:
            print(attempt(call), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0

SOUND = numpy.zeros(16000, numpy.float32)
def work():
    voxmlx.Session(voxmlx.load(sys.argv[1])).push(SOUND)

child(work)
checkpoint = voxmlx.load(sys.argv[1])
session = voxmlx.Session(checkpoint)
session.push(SOUND)
child(work, lambda: session.push(SOUND), session.flush, session.finish, session.work,
      lambda: voxmlx.Session(checkpoint), lambda: voxmlx.stream([SOUND], checkpoint))
session.push(SOUND)
"""


def test_a_forked_child_is_told_at_once_why_it_cannot_go_on(
    tiny_checkpoint_dir: Path,
) -> None:
    lines = run_script(FORK, [str(tiny_checkpoint_dir)])
    assert lines[0] == "works"
    assert len(lines) == 8
    for line in lines[1:]:
        assert "forked" in line
        assert "spawn" in line


def run_script(script: str, arguments: Sequence[str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return done.stdout.splitlines()
