"""One stream's sound and events, whatever network decodes it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxmlx.audio.quiet import QuietRun
from voxmlx.audio.speech import SpeechDetector
from voxmlx.audio.values import MAX_LEVEL, first_beyond
from voxmlx.config import (
    AUDIO_TOKEN_MS,
    RIGHT_PAD_TOKENS,
    SAMPLE_RATE,
    SAMPLES_PER_AUDIO_TOKEN,
    delay_tokens,
)
from voxmlx.decoding.decoded import Decoded
from voxmlx.errors import AudioError, SessionError
from voxmlx.events import (
    Alternative,
    DraftChanged,
    Event,
    Finished,
    GuardActed,
    Recovered,
    TokenDecoded,
)
from voxmlx.text.confidence_map import IDENTITY, ConfidenceMap
from voxmlx.text.draft_text import DraftText
from voxmlx.text.event_assembler import EventAssembler
from voxmlx.text.tokenizer import TextStream, Tokenizer

__all__ = ["Timeline", "TokenAudio"]


# After speech, text comes one delay later, and what is slow within so many audio tokens.
_TAIL_TOKENS = 8


@dataclass(frozen=True, slots=True)
class TokenAudio:
    """Sound [n] that completes len(speech) audio tokens, as the network takes it.

    `speech` says of each in whose time somebody seemed to speak. Where it `is_quiet`,
    no text is expected of any.
    """

    samples: NDArray[np.float32]
    speech: list[bool]
    is_quiet: bool = False


class Timeline:
    """Everything of a stream but the network: sound in order, and events of its ids.

    Its owner moves what `next_audio` returns through a network and gives `emit` the ids that
    come of it. None of it needs MLX, and nothing of it grows but sound not taken.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        n_before: int,
        lookahead: int,
        delay_ms: int,
        has_guards: bool,
        replacements: Mapping[str, str],
        pause_ms: int,
        confidence_map: ConfidenceMap = IDENTITY,
        draft_delay_ms: int | None = None,
        silence_block: int = 1,
    ) -> None:
        """`n_before` samples of silence are still to be taken before the sound, and
        `lookahead` samples beyond an audio token are needed to encode it. With
        `draft_delay_ms`, `emit_draft` takes ids of that delay too. In
        silence up to `silence_block` audio tokens are collected.

        Raises DelayError for a delay that is none of LEGAL_DELAYS_MS, and
        HotwordError for a replacement that is empty or cannot be written.
        """
        self.delay_ms = delay_ms
        self._delay_tokens = delay_tokens(delay_ms)
        self._speech_detector = SpeechDetector() if has_guards else None
        self._last_guard: str | None = None
        self._tokenizer = tokenizer
        self._text = TextStream(tokenizer)
        self._assembler = EventAssembler(replacements, pause_ms, confidence_map)
        # Mel frames look a little beyond their audio token, so the network always
        # has that much more than whole tokens.
        self._lookahead = lookahead
        # What is left of the silence before the stream, which is no part of it, and
        # no noise floor either: less than an audio token.
        self._pieces = deque([_silence(0, n_before)])
        self._n_pending = self._n_before = n_before
        self._n_pushed_tokens = -1
        self._n_samples = 0
        self._n_tokens = 0
        self.is_ended = False
        self._silence_block = silence_block
        self._quiet = QuietRun() if silence_block > 1 else None
        self._n_quiet_taken = 0  # audio tokens at the end of what was taken
        self._n_urgent = 0  # samples that a flush wants taken at once
        if self._quiet is not None:
            self._quiet.push(self._pieces[0])
        self._draft: DraftText | None = None
        if draft_delay_ms is not None:
            self._draft = DraftText(tokenizer, delay_tokens(draft_delay_ms))

    @property
    def duration_ms(self) -> int:
        """Sound heard so far."""
        return self._n_samples * 1000 // SAMPLE_RATE

    @property
    def n_waiting(self) -> int:
        """Samples that have not been taken."""
        return self._n_pending

    def n_tokens_after(self, n_samples: int) -> int:
        """Return how many audio tokens are whole after so many pushed samples."""
        return (self._n_pending + n_samples) // SAMPLES_PER_AUDIO_TOKEN

    @property
    def samples_wanted(self) -> int:
        """Samples to hear until another audio token is whole; 0 if one is to be taken."""
        if self.is_collecting:
            return SAMPLES_PER_AUDIO_TOKEN - self._n_pending % SAMPLES_PER_AUDIO_TOKEN
        return max(0, SAMPLES_PER_AUDIO_TOKEN - self._n_pending)

    @property
    def is_collecting(self) -> bool:
        """Return whether whole audio tokens wait for more of the same silence."""
        n_tokens = self._n_pending // SAMPLES_PER_AUDIO_TOKEN
        if self.is_ended or self._n_urgent or not 0 < n_tokens < self._silence_block:
            return False
        if self._quiet is None:
            return False
        return self._expects_pads(self._quiet.n_tokens - n_tokens)

    def _expects_pads(self, n_quiet: int) -> bool:
        """Whether no text is due, after so many quiet audio tokens that were taken."""
        # Ids of taken audio tokens that are held back: the prompt has none.
        n_held = self._n_pushed_tokens - self._delay_tokens - self._n_tokens
        if n_held > 0 or not self._assembler.is_settled:
            return False
        return n_quiet >= self._delay_tokens + _TAIL_TOKENS

    def push(self, samples: NDArray[Any]) -> None:
        """Add sound, as `Session.push` takes it. Raises AudioError, SessionError."""
        self._refuse_after_end("push")
        sound = _as_float32(samples)
        if sound is samples:
            sound = sound.copy()  # who pushed may use its memory again
        self._n_samples += len(sound)
        self._append(sound)

    def flush(self) -> None:
        """Add the silence that brings out all words spoken so far."""
        self._refuse_after_end("flush")
        silence = self._right_pad()
        self._n_samples += len(silence)
        self._append(silence)
        self._n_urgent = self._n_pending

    def end(self) -> None:
        """Nothing more will be heard but the silence that brings out the last words."""
        if not self.is_ended:
            self.is_ended = True
            self._append(self._right_pad())

    def next_audio(self, max_tokens: int) -> TokenAudio | None:
        """The sound of the next audio tokens that are whole; None if there is none."""
        n_tokens = min(self._n_pending // SAMPLES_PER_AUDIO_TOKEN, max_tokens)
        if n_tokens == 0:
            return None
        n = n_tokens * SAMPLES_PER_AUDIO_TOKEN
        is_quiet = 1 < n_tokens <= self._silence_block
        is_quiet = is_quiet and self._expects_pads(self._n_quiet_taken)
        samples = self._cut(n)
        if self._quiet is not None:
            n_left = self._n_pending // SAMPLES_PER_AUDIO_TOKEN
            self._n_quiet_taken = max(0, self._quiet.n_tokens - n_left)
        self._n_urgent = max(0, self._n_urgent - n)
        n_silent = min(self._n_before, n)
        self._n_before -= n_silent
        self._assembler.push_sound(samples[n_silent:])
        if self._speech_detector is not None:
            self._speech_detector.push(samples[n_silent:])
        return TokenAudio(samples, self._speech(n_tokens), is_quiet)

    def emit(self, decoded: Decoded) -> list[Event]:
        """Return the events that the next id makes certain."""
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
            decoded.guard,
            decoded.recovered,
        )
        events: list[Event] = [token]
        if decoded.guard is not None and decoded.guard != self._last_guard:
            events.append(GuardActed(decoded.guard, time_ms))
        self._last_guard = decoded.guard
        if decoded.recovered is not None:
            events.append(Recovered(decoded.recovered, time_ms))
        text = self._text.push(token.token_id)
        if self._draft is not None:
            self._draft.confirm(index, token.token_id, text)
        return events + self._assembler.push(token, text)

    def emit_draft(self, token_id: int) -> list[Event]:
        """Return the event that the draft's next id causes, after those of `emit`.

        NO_TOKEN stands for an id of its prompt.
        """
        assert self._draft is not None
        self._draft.push(token_id)
        text, time_ms = self._draft.take_change()
        return [] if text is None else [DraftChanged(text, time_ms)]

    def emit_end(self) -> list[Event]:
        """After the last id: what is still to be said, then a `Finished`."""
        events = self._assembler.flush(self._text.flush(), self.duration_ms)
        if self._draft is not None:
            self._draft.clear()
            text, time_ms = self._draft.take_change()
            if text is not None:
                events.append(DraftChanged(text, time_ms))
        return [*events, Finished(self.duration_ms, self._n_tokens)]

    def _refuse_after_end(self, action: str) -> None:
        if self.is_ended:
            raise SessionError(
                f"{action} after finish: the stream has ended; open a new Session"
            )

    def _append(self, sound: NDArray[np.float32]) -> None:
        self._n_pending += len(sound)
        if self._quiet is not None:
            self._quiet.push(sound)
        last = self._pieces[-1] if self._pieces else sound
        if len(last) + len(sound) < SAMPLES_PER_AUDIO_TOKEN and last is not sound:
            # Samples that come one by one would each take a hundred bytes.
            self._pieces[-1] = np.concatenate([last, sound])
        else:
            self._pieces.append(sound)

    def _cut(self, n: int) -> NDArray[np.float32]:
        """The next n samples."""
        self._n_pending -= n
        parts: list[NDArray[np.float32]] = []
        while n > 0:
            piece = self._pieces.popleft()
            parts.append(piece[:n])
            if len(piece) > n:
                # What is left of a piece must not keep all of it in memory.
                rest = piece[n:]
                is_short = len(rest) < SAMPLES_PER_AUDIO_TOKEN
                self._pieces.appendleft(rest.copy() if is_short else rest)
            n -= len(parts[-1])
        return np.concatenate(parts)

    def _right_pad(self) -> NDArray[np.float32]:
        to_whole = -self._n_samples % SAMPLES_PER_AUDIO_TOKEN
        # The reference pads one token more, but never decodes its position.
        return _silence(
            self._delay_tokens + RIGHT_PAD_TOKENS, to_whole + self._lookahead
        )

    def _speech(self, n_tokens: int) -> list[bool]:
        """Of the next audio tokens, in whose time somebody seems to speak.

        An id speaks about the sound one delay ago.
        """
        first = self._n_pushed_tokens + 1 - self._delay_tokens
        self._n_pushed_tokens += n_tokens
        detector = self._speech_detector
        if detector is None:
            return [False] * n_tokens
        ends_ms = range(
            first * AUDIO_TOKEN_MS, AUDIO_TOKEN_MS * (first + n_tokens), AUDIO_TOKEN_MS
        )
        return [detector.is_speech(end_ms) for end_ms in ends_ms]

    def _alternative(self, token_id: int, logprob: float) -> Alternative:
        text = self._tokenizer.piece(token_id).decode("utf-8", "replace")
        return Alternative(token_id, text, logprob)


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
    if (first := first_beyond(sound)) is not None:
        raise AudioError(
            f"sample {first} of {len(sound)} ({samples.dtype}) is {samples[first]:g}, "
            f"expected -1 to 1 (at most {MAX_LEVEL:g}); divide whole numbers by their "
            "full scale, as in samples / 32768; this piece was not heard"
        )
    return sound
