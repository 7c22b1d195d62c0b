"""An application with an event loop gets a session's events, and keeps its loop."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sounds import speech_like
from voxmlx import Checkpoint, Session, stream
from voxmlx.errors import AudioError, DelayError
from voxmlx.events import Event, Finished, TextDelta

SOUND = speech_like(16_000, seed=4)


class Source:
    """Pieces of a sound; notes that it was closed."""

    def __init__(self, *pieces: np.ndarray, error: Exception | None = None) -> None:
        self._pieces = pieces
        self._error = error
        self.is_closed = False

    async def sound(self) -> AsyncIterator[np.ndarray]:
        try:
            for piece in self._pieces:
                await asyncio.sleep(0)
                yield piece
            if self._error is not None:
                raise self._error
        finally:
            self.is_closed = True


async def collect(
    source: Source, checkpoint: Checkpoint, **options: int
) -> list[Event]:
    return [event async for event in stream(source.sound(), checkpoint, **options)]


def test_the_events_are_those_of_a_session(tiny_checkpoint: Checkpoint) -> None:
    source = Source(*np.array_split(SOUND, 7))
    events = asyncio.run(collect(source, tiny_checkpoint, delay_ms=240))
    session = Session(tiny_checkpoint, delay_ms=240)
    assert events == session.push(SOUND) + session.finish()
    assert source.is_closed


def test_two_streams_at_a_time_do_not_mix(tiny_checkpoint: Checkpoint) -> None:
    async def both() -> list[list[Event]]:
        sounds = (SOUND, SOUND[::-1].copy())
        return await asyncio.gather(
            *(collect(Source(*np.array_split(s, 5)), tiny_checkpoint) for s in sounds)
        )

    first, second = asyncio.run(both())
    assert first == asyncio.run(collect(Source(SOUND), tiny_checkpoint))
    assert second == asyncio.run(collect(Source(SOUND[::-1].copy()), tiny_checkpoint))


def test_the_event_loop_runs_while_sound_is_decoded(
    tiny_checkpoint: Checkpoint,
) -> None:
    async def count() -> int:
        n_turns = 0

        async def turn() -> None:
            nonlocal n_turns
            while True:
                n_turns += 1
                await asyncio.sleep(0)

        turning = asyncio.create_task(turn())
        await collect(Source(SOUND), tiny_checkpoint)
        turning.cancel()
        return n_turns

    assert asyncio.run(count()) > 50


def test_bad_sound_and_a_failing_source_raise_where_they_are_listened_to(
    tiny_checkpoint: Checkpoint,
) -> None:
    bad = Source(SOUND, np.array([np.nan], np.float32))
    with pytest.raises(AudioError, match="sample 0 of 1"):
        asyncio.run(collect(bad, tiny_checkpoint))
    broken = Source(SOUND, error=OSError("the microphone burnt"))
    with pytest.raises(OSError, match="burnt"):
        asyncio.run(collect(broken, tiny_checkpoint))
    with pytest.raises(DelayError):
        asyncio.run(collect(Source(SOUND), tiny_checkpoint, delay_ms=100))


def test_who_stops_listening_closes_the_source(tiny_checkpoint: Checkpoint) -> None:
    source = Source(*[SOUND] * 100)

    async def listen_to_one() -> Event:
        events = stream(source.sound(), tiny_checkpoint)
        try:
            return await anext(events)
        finally:
            await events.aclose()

    assert not isinstance(asyncio.run(listen_to_one()), Finished)
    assert source.is_closed


def test_a_block_that_is_left_closes_the_source(tiny_checkpoint: Checkpoint) -> None:
    source = Source(*[SOUND] * 100)

    async def listen_to_one() -> None:
        async with stream(source.sound(), tiny_checkpoint) as events:
            await anext(events)

    asyncio.run(listen_to_one())
    assert source.is_closed


def test_a_plain_source_gives_the_same_events_from_a_thread(
    tiny_checkpoint: Checkpoint,
) -> None:
    threads: set[threading.Thread] = set()

    def sound() -> Iterator[np.ndarray]:
        for piece in np.array_split(SOUND, 7):
            threads.add(threading.current_thread())
            yield piece

    async def listen(source: Any) -> list[Event]:
        return [event async for event in stream(source, tiny_checkpoint)]

    expected = asyncio.run(collect(Source(SOUND), tiny_checkpoint))
    assert asyncio.run(listen(sound())) == expected
    assert threading.main_thread() not in threads
    assert asyncio.run(listen([SOUND])) == expected


def test_a_plain_source_is_closed_by_whoever_stops_listening(
    tiny_checkpoint: Checkpoint,
) -> None:
    is_closed = threading.Event()

    def sound() -> Iterator[np.ndarray]:
        try:
            while True:
                yield SOUND
        finally:
            is_closed.set()

    async def listen_to_one() -> None:
        async with stream(sound(), tiny_checkpoint) as events:
            await anext(events)

    asyncio.run(listen_to_one())
    assert is_closed.is_set()


def test_what_a_plain_source_raises_is_raised_where_it_is_listened_to(
    tiny_checkpoint: Checkpoint,
) -> None:
    def sound() -> Iterator[np.ndarray]:
        yield SOUND
        raise OSError("the disk is gone")

    async def listen() -> None:
        async for _ in stream(sound(), tiny_checkpoint):
            pass

    with pytest.raises(OSError, match="gone"):
        asyncio.run(listen())


def test_a_flush_does_what_a_sessions_flush_does(tiny_checkpoint: Checkpoint) -> None:
    """Asked for by the same task that takes the events, many times."""

    async def listen() -> list[Event]:
        is_flushed = asyncio.Event()

        async def sound() -> AsyncIterator[np.ndarray]:
            yield SOUND
            await is_flushed.wait()
            yield SOUND

        got: list[Event] = []
        async with stream(sound(), tiny_checkpoint) as events:
            async for event in events:
                if not got:
                    events.flush()
                    events.flush()
                got.append(event)
                if len(got) == n_flushed:
                    is_flushed.set()
        return got

    session = Session(tiny_checkpoint)
    flushed = session.push(SOUND) + session.flush() + session.flush()
    n_flushed = len(flushed)
    expected = flushed + session.push(SOUND) + session.finish()
    assert asyncio.run(listen()) == expected
    assert any(isinstance(event, TextDelta) for event in expected)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        (SOUND, r"use \[array\]"),
        ("talk.wav", "open_audio"),
        (Path("talk.wav"), "open_audio"),
        (b"RIFF", "open_audio"),
        (7, "got int; expected an iterable"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_source_is_refused_before_it_is_listened_to(
    wrong: Any, advice: str, tiny_checkpoint: Checkpoint
) -> None:
    with pytest.raises(AudioError, match=advice):
        stream(wrong, tiny_checkpoint)
