"""The demo model hears both sides of calls, and one side's echo on the other."""

from collections.abc import Iterator
from difflib import SequenceMatcher

import numpy as np
import pytest

from tests.held_out import held_out
from voxmlx import Checkpoint, load
from voxmlx.audio.sound_levels import SoundLevels
from voxmlx.batch import Batch
from voxmlx.events import ChannelEvent, Event, Word, WordFinal
from voxmlx.session import Session
from voxmlx.text.echo_filter import EchoFilter

N_CALLS = 10
N_TURNS = 4
ECHO = 10 ** (-12 / 20)


def turns(seed: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Side, first sample and sound of each turn; some begin before the last has ended."""
    rng = np.random.default_rng(seed)
    sentences = held_out()
    at = 8_000
    for turn in range(N_TURNS):
        sentence = sentences[rng.integers(len(sentences))]
        gain = 10 ** (rng.normal(0, 1.5) / 20)
        yield turn % 2, at, sentence.samples * np.float32(gain)
        at += len(sentence.samples) + int(rng.uniform(-0.5, 1.0) * 16_000)


def call(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the microphone hears, the other side, and the microphone without the echo."""
    placed = list(turns(seed))
    n = max(at + len(sound) for _, at, sound in placed) + 16_000
    sides = np.zeros((2, n), np.float32)
    for side, at, sound in placed:
        sides[side, at : at + len(sound)] += sound
    late = round(np.random.default_rng(seed).uniform(30, 150) * 16)
    echo = np.zeros(n, np.float32)
    echo[late:] = sides[1, :-late] * np.float32(ECHO)
    heard = np.clip(sides[0] + echo, -1, 1), np.clip(sides[1], -1, 1)
    return *heard, np.clip(sides[0], -1, 1)


def decoded(checkpoint: Checkpoint, sounds: list[np.ndarray]) -> list[ChannelEvent]:
    """Events of all sounds, each a channel of its own, as they come."""
    batch = Batch(checkpoint.model)
    sessions = [Session(checkpoint, confidence=True) for _ in sounds]
    events: list[ChannelEvent] = []
    for session in sessions:
        batch.add(session)
    n = max(map(len, sounds))
    for start in range(0, n + 1280, 1280):
        for session, sound in zip(sessions, sounds, strict=True):
            if start <= n:
                session.timeline.push(sound[start : start + 1280])
            else:
                session.timeline.end()
        while batch.n_due:
            for session, own in batch.step():
                channel = sessions.index(session) + 1
                events += [ChannelEvent(channel, event) for event in own]
    return events


def words(events: list[Event]) -> list[Word]:
    return [event.word for event in events if isinstance(event, WordFinal)]


def own_words(heard: list[Word], alone: list[Word]) -> list[Word]:
    """Those that were heard without the echo too, at the same time."""
    matcher = SequenceMatcher(
        None, [w.text for w in alone], [w.text for w in heard], autojunk=False
    )
    return [
        heard[block.b + i]
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
        if abs(heard[block.b + i].end_ms - alone[block.a + i].end_ms) < 400
    ]


def only_echo(heard: list[Word], own: list[Word], alone: np.ndarray) -> list[Word]:
    """Words in whose second half the microphone heard nothing but the echo."""
    levels = SoundLevels()
    levels.push(alone)
    return [
        word
        for word in heard
        if word not in own
        and levels.level_dbfs((word.start_ms + word.end_ms) // 2, word.end_ms) < -45
    ]


@pytest.mark.slow
def test_no_line_is_doubled_and_own_words_stay() -> None:
    checkpoint = load("demo")
    n_own = n_lost = n_echoes = n_left = 0
    for seed in range(N_CALLS):
        sounds = list(call(seed))
        events = decoded(checkpoint, sounds)
        echo = EchoFilter(2)
        for channel in (1, 2):
            echo.push_sound(channel, sounds[channel - 1])
        told = [one for e in events if e.channel < 3 for one in echo.push(e)]
        raw = [words([e.event for e in events if e.channel == c]) for c in (1, 2, 3)]
        kept = [words([e.event for e in told if e.channel == c]) for c in (1, 2)]
        own = own_words(raw[0], raw[2])
        n_own += len(own) + len(raw[1])
        n_lost += sum(word not in kept[0] for word in own) + len(raw[1]) - len(kept[1])
        echoes = only_echo(raw[0], own, sounds[2])
        n_echoes += len(echoes)
        n_left += sum(word in kept[0] for word in echoes)
    assert n_own > 200
    assert n_echoes > 80
    assert n_lost < 0.01 * n_own, (n_lost, n_own)
    assert n_left < 0.01 * n_echoes, (n_left, n_echoes)
