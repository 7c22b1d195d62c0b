"""Samples in, events out: the timeline of one stream."""

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.checkpoint import Checkpoint
from voxmlx.config import (
    AUDIO_TOKEN_MS,
    LEFT_PAD_TOKENS,
    RIGHT_PAD_TOKENS,
    SAMPLE_RATE,
    SAMPLES_PER_AUDIO_TOKEN,
    delay_tokens,
)
from voxmlx.errors import AudioError, SessionError
from voxmlx.events import Event, Finished, TextDelta, TokenDecoded
from voxmlx.tokenizer import TextStream

__all__ = ["Session"]


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

    def __init__(self, checkpoint: Checkpoint, *, delay_ms: int = 480) -> None:
        """Open a stream whose text lags the sound by `delay_ms`.

        Raises DelayError unless the delay is one of LEGAL_DELAYS_MS.
        """
        self.delay_ms = delay_ms
        self._delay_tokens = delay_tokens(delay_ms)
        self._model = checkpoint.model
        self._state = checkpoint.model.make_state(delay_ms)
        self._text = TextStream(checkpoint.tokenizer)
        # Mel frames look a little beyond their audio token, so the network always
        # has that much more than whole tokens; at first it is still owed to it.
        self._lookahead = self._owed = checkpoint.model.mel.lookahead
        self._pending = _silence(LEFT_PAD_TOKENS)
        self._n_samples = 0
        self._n_tokens = 0
        self._is_finished = False

    @property
    def duration_ms(self) -> int:
        """Sound heard so far."""
        return self._n_samples * 1000 // SAMPLE_RATE

    @property
    def samples_wanted(self) -> int:
        """Samples to push until the next audio token is decoded; 0 if one is due."""
        wanted = SAMPLES_PER_AUDIO_TOKEN + self._owed - len(self._pending)
        return max(0, wanted)

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
        self._is_finished = True
        if rest := self._text.finish():
            events.append(TextDelta(rest, self.duration_ms))
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
        n_whole = max(0, len(pending) - self._owed) // SAMPLES_PER_AUDIO_TOKEN
        if n_whole == 0:
            self._pending = pending
            return []
        n = n_whole * SAMPLES_PER_AUDIO_TOKEN + self._owed
        self._pending, self._owed = pending[n:].copy(), 0
        ids = self._model.step(mx.array(pending[:n])[None], self._state)
        events: list[Event] = []
        for token_id in ids[0].tolist():
            if token_id >= 0:
                events += self._say(token_id)
        return events

    def _say(self, token_id: int) -> list[Event]:
        # Token k speaks about the sound up to (k + 1) * 80 ms: the delay and the
        # prompt cancel out of its position (vLLM's formula).
        index = self._n_tokens
        time_ms = (index + 1) * AUDIO_TOKEN_MS
        self._n_tokens += 1
        events: list[Event] = [TokenDecoded(token_id, index, time_ms)]
        if text := self._text.push(token_id):
            events.append(TextDelta(text, time_ms))
        return events


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
