"""Sound of a stream that may have to be sent once more, as 16-bit samples."""

from collections import deque

import numpy as np

from voxmlx.config import SAMPLES_PER_AUDIO_TOKEN
from voxmlx.live.recorded import to_pcm16

__all__ = ["KeptSound"]


class KeptSound:
    """The latest sound, up to `max_samples`; places are samples since the beginning.

    `n_sent` samples have gone to the server that listens now.
    """

    def __init__(self, max_samples: int) -> None:
        self._max_samples = max_samples
        self._pieces: deque[np.ndarray] = deque()
        self.start = self.end = self.n_sent = 0

    @property
    def n_kept(self) -> int:
        """Return how many samples are kept."""
        return self.end - self.start

    @property
    def n_unsent(self) -> int:
        """Return the number of samples that are still to be sent."""
        return self.end - self.n_sent

    @property
    def n_pieces(self) -> int:
        """Return in how many arrays the sound lies."""
        return len(self._pieces)

    def push(self, samples: np.ndarray) -> None:
        """Add float samples [n]; what is too old for the bound goes."""
        if len(samples):
            piece = to_pcm16(samples)
            if self._pieces and len(self._pieces[-1]) < SAMPLES_PER_AUDIO_TOKEN:
                # Tiny pieces would cost many times their sound.
                piece = np.concatenate([self._pieces.pop(), piece])
            self._pieces.append(piece)
            self.end += len(samples)
            self._drop(self.end - self._max_samples)

    def forget(self, until: int) -> None:
        """Drop sound before `until` that has been sent."""
        self._drop(min(until, self.n_sent))

    def rewind(self, start: int) -> int:
        """Send again from `start`, or from the oldest whole audio token; return where."""
        if start < self.start:
            start = -(-self.start // SAMPLES_PER_AUDIO_TOKEN) * SAMPLES_PER_AUDIO_TOKEN
            start = min(start, self.end)
        self.n_sent = start
        return start

    def take(self, max_samples: int) -> np.ndarray:
        """Return the next int16 samples to send, [n] up to `max_samples`."""
        parts: list[np.ndarray] = []
        begin = max(self.n_sent, self.start)
        position, n_left = self.start, max_samples
        for piece in self._pieces:
            if not n_left:
                break
            skipped = max(0, begin - position)
            position += len(piece)
            if skipped < len(piece):
                parts.append(piece[skipped : skipped + n_left])
                n_left -= len(parts[-1])
        taken = np.concatenate([np.zeros(0, "<i2"), *parts])
        self.n_sent = begin + len(taken)
        return taken

    def _drop(self, until: int) -> None:
        """Drop samples before `until`, in whole pieces but the first that stays."""
        while self._pieces and self.start < until:
            n = min(until - self.start, len(self._pieces[0]))
            if n == len(self._pieces[0]):
                self._pieces.popleft()
            else:
                self._pieces[0] = self._pieces[0][n:].copy()
            self.start += n
