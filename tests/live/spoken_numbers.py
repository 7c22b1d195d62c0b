"""A session without a network: it knows words that are written into the samples."""

from typing import cast

import numpy as np

from voxmlx.config import AUDIO_TOKEN_MS, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.events import (
    Event,
    Finished,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.session import Session

__all__ = ["NumberSession", "as_session", "n_tokens_of", "spoken"]

_SCALE = 128  # exact in 16 bits
_PAUSE_TOKENS = 10


def n_tokens_of(number: int) -> int:
    """How many audio tokens it takes to say a number from 1 to 99."""
    return 1 + number % 12


def spoken(said: list[tuple[int, int]]) -> np.ndarray:
    """Sound of numbers, with so many audio tokens of silence before each, 1 at least."""
    tokens: list[int] = []
    for number, n_silent in said:
        tokens += [0] * max(1, n_silent) + [number] * n_tokens_of(number)
    tokens.append(0)
    values = np.array(tokens, np.float32) / _SCALE
    return np.repeat(values, SAMPLES_PER_AUDIO_TOKEN)


class NumberSession:
    """Says each number that it heard from beginning to end; else that it was cut."""

    def __init__(self, delay_ms: int) -> None:
        self.delay_ms = delay_ms
        self._sound = np.zeros(0, np.float32)
        self._n_samples = 0
        self._heard: list[int] = []
        self._n_ids = self._n_in_word = self._word = 0
        self._start_ms: int | None = None
        self._end_ms = self._n_words = 0

    @property
    def samples_wanted(self) -> int:
        return SAMPLES_PER_AUDIO_TOKEN - len(self._sound)

    def push(self, samples: np.ndarray) -> list[Event]:
        if samples.dtype == np.int16:
            samples = samples.astype(np.float32) / 32768
        self._n_samples += len(samples)
        self._sound = np.concatenate([self._sound, samples])
        events: list[Event] = []
        while len(self._sound) >= SAMPLES_PER_AUDIO_TOKEN:
            self._heard.append(round(float(self._sound[0]) * _SCALE))
            self._sound = self._sound[SAMPLES_PER_AUDIO_TOKEN:]
            if len(self._heard) > self.delay_ms // AUDIO_TOKEN_MS:
                events += self._decode(self._heard[self._n_ids])
        return events

    def finish(self) -> list[Event]:
        duration_ms = self._n_samples // 16
        n_tokens = self.delay_ms // AUDIO_TOKEN_MS + _PAUSE_TOKENS + 1
        events = self.push(np.zeros(n_tokens * SAMPLES_PER_AUDIO_TOKEN, np.float32))
        return [*events, Finished(duration_ms, self._n_ids)]

    def _decode(self, value: int) -> list[Event]:
        """Events of the next id, which speaks about an audio token of `value`."""
        index = self._n_ids
        self._n_ids += 1
        time_ms = self._n_ids * AUDIO_TOKEN_MS
        events: list[Event] = [TokenDecoded(value or 32, index, time_ms)]
        if value == self._word:
            self._n_in_word += 1
        else:
            if self._word:
                events += self._say(index * AUDIO_TOKEN_MS, time_ms)
            self._word, self._n_in_word = value, 1
        n_blank = index + 1 - self._end_ms // AUDIO_TOKEN_MS
        is_silent = self._word == 0 and n_blank == _PAUSE_TOKENS
        if self._start_ms is not None and is_silent:
            events.append(UtteranceEnd(self._start_ms, self._end_ms, time_ms))
            self._start_ms = None
        return events

    def _say(self, end_ms: int, time_ms: int) -> list[Event]:
        is_whole = self._n_in_word == n_tokens_of(self._word)
        text = str(self._word) if is_whole else "cut"
        lead = " " if self._n_words else ""
        self._n_words += 1
        start_ms = end_ms - self._n_in_word * AUDIO_TOKEN_MS
        self._start_ms = start_ms if self._start_ms is None else self._start_ms
        self._end_ms = end_ms
        word = Word(text, start_ms, end_ms, lead=lead)
        return [TextDelta(lead + text, end_ms), WordFinal(word, time_ms)]


def as_session(session: NumberSession) -> Session:
    """The same, for whoever is strict about types."""
    return cast(Session, session)
