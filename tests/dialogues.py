"""Made-up calls: who says what and when, and what a microphone hears of the other."""

import json
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from tests.held_out import FOLDER
from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.events import ChannelEvent, Finished, TokenDecoded, Word, WordFinal

__all__ = ["Call", "events_of", "make_call", "sentences"]

TOKEN_MS = 80
TEXT_ID = 2000


@cache
def sentences() -> tuple[str, ...]:
    """Sentences of the demo's grammar."""
    lines = (FOLDER / "held_out.jsonl").read_text("utf-8").splitlines()
    return tuple(sorted({json.loads(line)["text"] for line in lines}))


@dataclass(slots=True)
class Call:
    """Words of two sides as a model would report them, and the sound's levels.

    Channel 1 is a microphone that also hears channel 2, by a loudspeaker.
    """

    words: list[list[Word]] = field(default_factory=lambda: [[], []])
    echoes: list[Word] = field(default_factory=list)
    misheard: list[Word] = field(default_factory=list)  # echoes with another text
    # Amplitude of every 10 ms of each channel.
    amplitudes: list[np.ndarray] = field(default_factory=list)

    def sound(self, channel: int) -> np.ndarray:
        """Samples [n] of a channel, from 0."""
        return np.repeat(self.amplitudes[channel], 160)


@dataclass(frozen=True, slots=True)
class _Said:
    text: str
    start_ms: float
    end_ms: float
    level_db: float


def make_call(seed: int, *, echo_db: float = -12.0, n_turns: int = 6) -> Call:
    """A call of so many turns; a third of them begin before the one before has ended."""
    rng = np.random.default_rng(seed)
    delay_ms = rng.uniform(30, 150)
    said: list[list[_Said]] = [[], []]
    voice_db = rng.normal(-22, 2, 2)
    now = 500.0
    for turn in range(n_turns):
        side = turn % 2
        at = max(now, said[side][-1].end_ms + 100 if said[side] else 0)
        level_db = voice_db[side] + rng.normal(0, 1.5)
        for text in str(rng.choice(sentences())).split():
            length = 120 + 55 * len(text) * rng.uniform(0.8, 1.3)
            said[side].append(_Said(text, at, at + length, level_db + rng.normal(0, 1)))
            at += length + 20
        now = at + rng.uniform(-700, 1400)
    call = Call()
    n = int(max(one[-1].end_ms for one in said if one)) // 10 + 100
    power = np.full((2, n), 1e-7)
    for side in range(2):
        for one in said[side]:
            _add_power(power[side], one, 0.0, 0.0)
            call.words[side].append(_reported(rng, one, 0.0, 0.97))
    for one in said[1]:
        quieter = echo_db + rng.normal(0, 1)
        _add_power(power[0], one, delay_ms, quieter)
        if _is_heard(rng, one, delay_ms, said[0]):
            heard = _misheard(rng, one)
            word = _reported(rng, heard, delay_ms, 0.9)
            call.echoes.append(word)
            if heard.text != one.text:
                call.misheard.append(word)
            call.words[0].append(word)
    call.words[0].sort(key=lambda word: word.end_ms)
    call.amplitudes = list(np.sqrt(power).astype(np.float32))
    return call


def _add_power(power: np.ndarray, one: _Said, late_ms: float, change_db: float) -> None:
    start, end = (round((at + late_ms) / 10) for at in (one.start_ms, one.end_ms))
    power[start:end] += 10 ** ((one.level_db + change_db) / 10)


def _is_heard(
    rng: np.random.Generator, one: _Said, late_ms: float, own: list[_Said]
) -> bool:
    """A voice hides the quieter echo of another; some of an echo is lost anyway."""
    is_hidden = any(
        other.start_ms < one.end_ms + late_ms and other.end_ms > one.start_ms + late_ms
        for other in own
    )
    return not is_hidden and rng.random() < 0.95


def _misheard(rng: np.random.Generator, one: _Said) -> _Said:
    """One word in twelve is another one."""
    if rng.random() > 1 / 12:
        return one
    text = str(rng.choice(str(rng.choice(sentences())).split()))
    return _Said(text, one.start_ms, one.end_ms, one.level_db)


def _reported(
    rng: np.random.Generator, one: _Said, late_ms: float, sure: float
) -> Word:
    """As a session reports it: ends are known to an audio token."""
    end_ms = one.end_ms + late_ms + rng.normal(0, 25)
    end_ms = max(1, round(end_ms / TOKEN_MS)) * TOKEN_MS + TOKEN_MS // 2
    start_ms = min(round(one.start_ms + late_ms + rng.normal(0, 15)), end_ms - 40)
    confidence = float(np.clip(rng.normal(sure, 0.04), 0.05, 1))
    return Word(one.text, max(0, start_ms), end_ms, confidence)


def events_of(words: list[Word], channel: int, n_tokens: int) -> list[ChannelEvent]:
    """A session's ids and words, in order; a word is final after three PADs or text."""
    events: list[ChannelEvent] = []
    coming = list(words)
    open_words: list[Word] = []
    n_pads, n_text = 3, 0
    for index in range(n_tokens):
        time_ms = (index + 1) * TOKEN_MS
        due: list[Word] = []
        while coming and coming[0].end_ms <= time_ms:
            due.append(coming.pop(0))
        token_id = STREAMING_WORD_ID if due else TEXT_ID if n_text else STREAMING_PAD_ID
        n_text = 1 if due else max(0, n_text - 1)
        n_pads = n_pads + 1 if token_id == STREAMING_PAD_ID else 0
        events.append(ChannelEvent(channel, TokenDecoded(token_id, index, time_ms)))
        if due or n_pads == 3:
            events += [ChannelEvent(channel, WordFinal(w, time_ms)) for w in open_words]
            open_words = []
        open_words += due
    left = [*open_words, *coming]
    events += [ChannelEvent(channel, WordFinal(w, n_tokens * TOKEN_MS)) for w in left]
    return [*events, ChannelEvent(channel, Finished(n_tokens * TOKEN_MS, n_tokens))]
