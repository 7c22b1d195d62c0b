"""Samples in, events out: the timeline of one stream."""

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.audio.energy import EnergyDetector
from voxmlx.checkpoint import Checkpoint
from voxmlx.config import (
    AUDIO_TOKEN_MS,
    RIGHT_PAD_TOKENS,
    SAMPLE_RATE,
    SAMPLES_PER_AUDIO_TOKEN,
    delay_tokens,
)
from voxmlx.decoding import Decoded, TokenDecoder
from voxmlx.errors import AudioError, SessionError
from voxmlx.events import (
    Alternative,
    Event,
    Finished,
    GuardActed,
    TextDelta,
    TokenDecoded,
    Word,
    WordFinal,
)
from voxmlx.hotwords import BOOST, HotwordTrie
from voxmlx.model.voxtral import MAX_AUDIO_TOKENS_PER_STEP
from voxmlx.replacements import Replacements
from voxmlx.rules import GUARDS
from voxmlx.tokenizer import TextStream
from voxmlx.utterances import UtteranceTracker
from voxmlx.words import SETTLE_TOKENS, WordAssembler

__all__ = ["MAX_ALTERNATIVES", "MAX_BOOST", "Session"]

MAX_ALTERNATIVES = 100
MAX_BOOST = 20.0

# Guards take sound for speech if any of the last second was loud enough.
_SPEECH_MEMORY_MS = 1000


class Session:
    """One stream of 16 kHz mono sound, transcribed as it comes.

    Sound may arrive in pieces of any size; what comes out does not depend on how it
    was cut. A session lives as long as its owner wants: nothing of it grows. It has
    no clock, file or thread, and many sessions, each with its own delay, can share
    one checkpoint (from one thread).

    The model's end-of-sequence id is masked, so it can neither end nor reset a
    session: in a live stream it only marks a pause, and a decoder that is fed it
    continues where no training sequence ever went.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        delay_ms: int = 480,
        confidence: bool = False,
        alternatives: int = 0,
        guards: Sequence[str] = (),
        hotwords: Sequence[str] = (),
        hotword_boost: float = BOOST,
        replacements: Mapping[str, str] | None = None,
        pause_ms: int = 800,
    ) -> None:
        """Open a stream whose text lags the sound by `delay_ms`.

        `confidence` gives ids and words their probabilities, `alternatives` every id
        the so many most probable ones. `guards` are names of GUARDS; a session with
        them differs only where one acts, which it says. `hotwords` are phrases to
        listen for, favoured by `hotword_boost` logits, `replacements` what final words to write otherwise (not the
        TextDeltas, which are sooner). An UtteranceEnd comes after `pause_ms`
        without speech.

        Raises DelayError unless the delay is one of LEGAL_DELAYS_MS, HotwordError
        for a phrase or replacement that is empty or cannot be written, and
        SessionError for any other value that is not possible.
        """
        _refuse_impossible(alternatives, guards, pause_ms)
        _refuse_impossible_hotwords(hotwords, hotword_boost)
        self.delay_ms = delay_ms
        self._delay_tokens = delay_tokens(delay_ms)
        trie = None
        if hotwords:
            trie = HotwordTrie(checkpoint.tokenizer, hotwords, boost=hotword_boost)
        self._decoder = TokenDecoder(
            checkpoint.model,
            delay_ms,
            rules=[GUARDS[name]() for name in guards],
            hotwords=trie,
            has_probabilities=confidence,
            n_alternatives=alternatives,
        )
        self._has_guards = bool(guards)
        self._last_guard: str | None = None
        self._tokenizer = checkpoint.tokenizer
        self._text = TextStream(checkpoint.tokenizer)
        self._energy = EnergyDetector()
        self._words = WordAssembler(self._energy)
        self._replacements = Replacements(replacements or {})
        self._utterances = UtteranceTracker(pause_ms, self._energy)
        # Mel frames look a little beyond their audio token, so the network always
        # has that much more than whole tokens.
        self._lookahead = checkpoint.model.mel.lookahead
        # What is left of the silence before the stream, which is no part of it, and
        # no noise floor either: less than an audio token.
        self._pending = _silence(0, self._decoder.n_silent_samples)
        self._n_before = len(self._pending)
        self._n_heard_tokens = -1
        self._n_samples = 0
        self._n_tokens = 0
        self._is_finished = False

    @property
    def duration_ms(self) -> int:
        """Sound heard so far."""
        return self._n_samples * 1000 // SAMPLE_RATE

    @property
    def samples_wanted(self) -> int:
        """Samples to push until the next audio token is decoded."""
        return SAMPLES_PER_AUDIO_TOKEN - len(self._pending)

    def push(self, samples: NDArray[Any]) -> list[Event]:
        """Hear more sound; returns what it made certain.

        `samples` is one-dimensional, of any length: float32 or float64 in [-1, 1],
        or int16. Raises AudioError for anything else and for NaN or infinite
        values, before any of it is heard; SessionError after `finish`.
        """
        if self._is_finished:
            raise SessionError(
                "push after finish: the stream has ended; open a new Session"
            )
        sound = _as_float32(samples)
        self._n_samples += len(sound)
        return self._hear(sound)

    def flush(self) -> list[Event]:
        """Bring out the words spoken so far without ending the stream.

        Does so by hearing silence, as the model was trained to: up to the next
        whole audio token, then the delay and 0.8 s more. The stream goes on after
        it, and its clock counts that silence.
        """
        if self._is_finished:
            raise SessionError(
                "flush after finish: the stream has ended; open a new Session"
            )
        silence = self._right_pad()
        self._n_samples += len(silence)
        return self._hear(silence)

    def finish(self) -> list[Event]:
        """End the stream: its last words, then a `Finished`.

        Pads on the right as the reference does, so that the ids of a whole stream
        equal transformers' for the same sound. A second call returns nothing.
        """
        if self._is_finished:
            return []
        events = self._hear(self._right_pad())
        for decoded in self._decoder.finish():
            events += self._say(decoded)
        self._is_finished = True
        if rest := self._text.finish():
            events.append(TextDelta(rest, self.duration_ms))
        words = self._words.finish(rest, self.duration_ms)
        end = self._utterances.finish(words, self.duration_ms)
        events += self._final(words, self.duration_ms, is_pause=True)
        if end is not None:
            events.append(end)
        events.append(Finished(self.duration_ms, self._n_tokens))
        return events

    def _right_pad(self) -> NDArray[np.float32]:
        to_whole = -self._n_samples % SAMPLES_PER_AUDIO_TOKEN
        # The reference pads one token more, but never decodes its position.
        return _silence(
            self._delay_tokens + RIGHT_PAD_TOKENS, to_whole + self._lookahead
        )

    def _hear(self, sound: NDArray[np.float32]) -> list[Event]:
        pending = np.concatenate([self._pending, sound])
        n = len(pending) // SAMPLES_PER_AUDIO_TOKEN * SAMPLES_PER_AUDIO_TOKEN
        if n == 0:
            self._pending = pending
            return []
        self._pending, heard = pending[n:].copy(), pending[:n]
        # Blocks bound the memory that any amount of sound takes.
        block = MAX_AUDIO_TOKENS_PER_STEP * SAMPLES_PER_AUDIO_TOKEN
        cuts = range(block, n, block)
        events: list[Event] = []
        for samples in np.split(heard, cuts):
            n_silent = min(self._n_before, len(samples))
            self._n_before -= n_silent
            self._energy.step(samples[n_silent:])
            speech = self._speech(len(samples) // SAMPLES_PER_AUDIO_TOKEN)
            for decoded in self._decoder.step(mx.array(samples)[None], speech):
                events += self._say(decoded)
        return events

    def _speech(self, n_tokens: int) -> list[bool]:
        """Of the next audio tokens, in whose time somebody seems to speak.

        An id speaks about the sound one delay ago.
        """
        first = self._n_heard_tokens + 1 - self._delay_tokens
        self._n_heard_tokens += n_tokens
        if not self._has_guards:
            return [False] * n_tokens
        ends_ms = range(
            first * AUDIO_TOKEN_MS, AUDIO_TOKEN_MS * (first + n_tokens), AUDIO_TOKEN_MS
        )
        return [
            self._energy.is_speech(end_ms - _SPEECH_MEMORY_MS, end_ms)
            for end_ms in ends_ms
        ]

    def _say(self, decoded: Decoded) -> list[Event]:
        # Token k speaks about the sound up to (k + 1) * 80 ms: the delay and the
        # prompt cancel out of its position (vLLM's formula).
        index = self._n_tokens
        time_ms = (index + 1) * AUDIO_TOKEN_MS
        self._n_tokens += 1
        token = TokenDecoded(
            decoded.token_id,
            index,
            time_ms,
            decoded.logprob,
            tuple(self._alternative(*pair) for pair in decoded.alternatives),
        )
        events: list[Event] = [token]
        if decoded.guard is not None and decoded.guard != self._last_guard:
            events.append(GuardActed(decoded.guard, time_ms))
        self._last_guard = decoded.guard
        text = self._text.push(token.token_id)
        if text:
            events.append(TextDelta(text, time_ms))
        words = self._words.push(token, text)
        end = self._utterances.push(token, words)
        events += self._final(words, time_ms, is_pause=end is not None)
        if end is not None:
            events.append(end)
        return events

    def _final(
        self, words: Sequence[Word], time_ms: int, *, is_pause: bool
    ) -> list[Event]:
        final = [certain for word in words for certain in self._replacements.push(word)]
        if is_pause:
            final += self._replacements.flush()
        return [WordFinal(word, time_ms) for word in final]

    def _alternative(self, token_id: int, logprob: float) -> Alternative:
        text = self._tokenizer.piece(token_id).decode("utf-8", "replace")
        return Alternative(token_id, text, logprob)


def _refuse_impossible(alternatives: int, guards: Sequence[str], pause_ms: int) -> None:
    if not 0 <= alternatives <= MAX_ALTERNATIVES:
        raise SessionError(
            f"{alternatives} alternatives, expected 0 to {MAX_ALTERNATIVES}"
        )
    for name in guards:
        if name not in GUARDS:
            raise SessionError(f"guard {name!r} is unknown; use {', '.join(GUARDS)}")
    least_ms = SETTLE_TOKENS * AUDIO_TOKEN_MS
    if not least_ms <= pause_ms <= 10_000:
        raise SessionError(f"pause of {pause_ms} ms, expected {least_ms} to 10000")


def _refuse_impossible_hotwords(hotwords: Sequence[str], boost: float) -> None:
    if isinstance(hotwords, str):
        raise SessionError(f"hot words are the text {hotwords!r}, expected a list")
    if not 0 < boost <= MAX_BOOST:
        raise SessionError(
            f"hot words are boosted by {boost}, expected more than 0, at most "
            f"{MAX_BOOST}"
        )


def _silence(n_tokens: int, n_samples: int = 0) -> NDArray[np.float32]:
    return np.zeros(n_tokens * SAMPLES_PER_AUDIO_TOKEN + n_samples, np.float32)


def _as_float32(samples: NDArray[Any]) -> NDArray[np.float32]:
    """One-dimensional float32 sound, or AudioError."""
    if not isinstance(samples, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers are untyped
        raise AudioError(
            f"samples are a {type(samples).__name__}, expected a NumPy array of "
            "float32, float64 or int16"
        )
    if samples.ndim != 1 or samples.dtype.type not in (
        np.float32,
        np.float64,
        np.int16,
    ):
        raise AudioError(
            f"samples are {samples.dtype} of shape {list(samples.shape)}, expected one "
            "dimension of float32, float64 or int16; average channels first"
        )
    if samples.dtype.type is np.int16:
        return samples.astype(np.float32) / np.float32(32768)
    with np.errstate(over="ignore"):  # what overflows float32 is refused below
        sound = samples.astype(np.float32, copy=False)
    finite = np.isfinite(sound)
    if not finite.all():
        first = int(np.argmin(finite))
        raise AudioError(
            f"sample {first} of {len(sound)} ({samples.dtype}, shape "
            f"{list(samples.shape)}) is {samples[first]}, expected finite values; this "
            "piece was not heard"
        )
    return sound
