"""Ends of utterances: pauses after speech."""

from collections.abc import Sequence

from voxmlx.audio.energy import EnergyDetector
from voxmlx.config import AUDIO_TOKEN_MS, STREAMING_PAD_ID
from voxmlx.events import TokenDecoded, UtteranceEnd, Word
from voxmlx.text.words import SETTLE_TOKENS

__all__ = [
    "DEFAULT_PAUSE_MS",
    "MAX_PAUSE_MS",
    "MIN_PAUSE_MS",
    "UtteranceTracker",
    "check_pause",
]

# Silence that ends an utterance. A shorter one than the first could come before the
# last word is final.
MIN_PAUSE_MS, DEFAULT_PAUSE_MS, MAX_PAUSE_MS = (
    SETTLE_TOKENS * AUDIO_TOKEN_MS,
    800,
    10_000,
)

# In noise that is as loud as speech, blanks alone must tell a pause: more of them.
_NOISE_FACTOR = 3


def check_pause(pause_ms: int) -> None:
    """Raise ValueError for a pause that no stream can have."""
    if not MIN_PAUSE_MS <= pause_ms <= MAX_PAUSE_MS:
        raise ValueError(
            f"pause of {pause_ms} ms, expected {MIN_PAUSE_MS} to {MAX_PAUSE_MS}"
        )


class UtteranceTracker:
    """Ends of one stream's utterances: blanks, and no speech in the sound."""

    def __init__(self, pause_ms: int, sound: EnergyDetector) -> None:
        self._pause_ms = pause_ms
        self._sound = sound
        self._start_ms: int | None = None
        self._end_ms = 0
        self._blank_ms = 0

    @property
    def is_settled(self) -> bool:
        """Return whether no utterance waits for its end."""
        return self._start_ms is None

    def push(self, token: TokenDecoded, words: Sequence[Word]) -> UtteranceEnd | None:
        """The next id, and the words it made final."""
        if token.token_id == STREAMING_PAD_ID:
            # A count without end would grow with the stream.
            limit_ms = (_NOISE_FACTOR + 1) * self._pause_ms
            self._blank_ms = min(self._blank_ms + AUDIO_TOKEN_MS, limit_ms)
        else:
            self._blank_ms = 0
        self._note(words)
        if self._start_ms is None or not self._is_pause(token.time_ms):
            return None
        return self._ended(token.time_ms)

    def flush(self, words: Sequence[Word], duration_ms: int) -> UtteranceEnd | None:
        """The last words; the stream's end ends an utterance."""
        self._note(words)
        return None if self._start_ms is None else self._ended(duration_ms)

    def _note(self, words: Sequence[Word]) -> None:
        if words:
            if self._start_ms is None:
                self._start_ms = words[0].start_ms
            self._end_ms = words[-1].end_ms

    def _is_pause(self, time_ms: int) -> bool:
        if self._blank_ms < self._pause_ms:
            return False
        if self._blank_ms >= _NOISE_FACTOR * self._pause_ms:
            return True
        return not self._sound.is_speech(time_ms - self._pause_ms, time_ms)

    def _ended(self, time_ms: int) -> UtteranceEnd:
        assert self._start_ms is not None
        end = UtteranceEnd(self._start_ms, self._end_ms, time_ms)
        self._start_ms = None
        return end
