"""Sound of a stream that the next one may hear again, and from where."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from voxmlx.config import SAMPLE_RATE, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.live.kept_sound import KeptSound

__all__ = ["RestartSound"]

# So long before its text, a word has begun.
_WORD_MS = 2000

# A server's stream does not begin anew that would hear more than this again: what waits
# of one client would hold up the others, at each change of its options.
_AGAIN_SAMPLES = 60 * SAMPLE_RATE
_KEPT_SAMPLES = _AGAIN_SAMPLES + 10 * SAMPLE_RATE


class RestartSound:
    """The sound sent since about 3 s before the last id; one clock for all streams.

    A stream ends where nobody speaks: in the middle of a pause, or at a flush. By the
    time that this is known, it has heard sound of the words after it. The next stream
    begins at that quiet moment, or 2 s before the last id if that is later. All words
    before are out. It hears again what came since.
    """

    def __init__(self) -> None:
        self._kept = KeptSound(_KEPT_SAMPLES)
        self._flushes: deque[int] = deque()  # places of those on their way
        self._quiet = 0  # the last place between two words
        self._known = 0  # words that began before it are out

    @property
    def n_kept(self) -> int:
        """Return how many samples are kept."""
        return self._kept.n_kept

    @property
    def n_again(self) -> int:
        """Return how many samples the next stream has to hear again."""
        return self._kept.n_unsent

    @property
    def may_rewind(self) -> bool:
        """Return whether little enough has to be heard again."""
        return self.n_to_rewind <= _AGAIN_SAMPLES

    @property
    def n_to_rewind(self) -> int:
        """Return how many samples a stream would hear again that begins now."""
        return self._kept.end - self._restart

    @property
    def start_ms(self) -> int:
        """Return where a stream begins that hears what comes next."""
        return round(self._kept.n_sent * 1000 / SAMPLE_RATE)

    def push(self, samples: NDArray[np.float32]) -> None:
        """Note sound [n] at 16 kHz that was sent to the stream."""
        self._kept.push(samples)
        self._kept.n_sent = self._kept.end

    def flush(self) -> None:
        """Note that a flush follows the sound so far."""
        self._flushes.append(self._kept.end)

    def flushed(self) -> None:
        """Note that the oldest flush is done: all words before it are out."""
        self._quiet = self._flushes.popleft()

    def decoded(self, time_ms: int) -> None:
        """Note the time of an id; sound long before it goes."""
        self._known = max(self._known, self._place_of(time_ms - _WORD_MS))
        if self._known - self._kept.start >= SAMPLE_RATE:  # not for each id
            self._kept.forget(self._known)

    def paused(self, end_ms: int, time_ms: int) -> None:
        """Note an end of words, and when it was known that nobody goes on speaking."""
        self._quiet = max(self._quiet, self._place_of((end_ms + time_ms) // 2))

    def rewind(self) -> None:
        """Go back to where the next stream begins."""
        self._kept.rewind(self._restart)

    def take(self) -> NDArray[np.float32]:
        """Return the sound to hear again, [n]."""
        pcm = self._kept.take(self.n_again)
        return pcm.astype(np.float32) / np.float32(32768)

    @property
    def _restart(self) -> int:
        return max(self._quiet, self._known)

    def _place_of(self, ms: int) -> int:
        """Return the place of a whole audio token, before all flushes on their way."""
        place = ms * SAMPLE_RATE // 1000
        place -= place % SAMPLES_PER_AUDIO_TOKEN
        return min([place, self._kept.end, *self._flushes])
