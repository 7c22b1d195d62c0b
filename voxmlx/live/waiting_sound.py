"""Sound of one stream that waits to be decoded, and when it was there."""

from collections import deque
from collections.abc import Callable

import numpy as np

from voxmlx.audio.block_queue import Block
from voxmlx.config import SAMPLES_PER_AUDIO_TOKEN

__all__ = ["MAX_STEP_SAMPLES", "WaitingSound"]

MAX_STEP_SAMPLES = 32 * SAMPLES_PER_AUDIO_TOKEN
"""One push of a backlog, 2.56 s: signals and the display wait no longer than that."""


class WaitingSound:
    """Blocks in order, taken in steps of whole blocks; none is ever dropped here."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque()
        self.n_samples = 0
        self._n_taken = 0

    @property
    def is_full(self) -> bool:
        """Return whether a file need not be read further ahead."""
        return self.n_samples >= MAX_STEP_SAMPLES

    @property
    def n_heard(self) -> int:
        """Return how many samples have come, taken or not."""
        return self._n_taken + self.n_samples

    def push(self, block: Block) -> None:
        """Add a block, unless it is empty."""
        if len(block.samples):
            self._blocks.append(block)
            self.n_samples += len(block.samples)

    def mark(self) -> Callable[[], bool]:
        """Return what says whether all that is here now has been taken."""
        n_here = self.n_heard
        return lambda: self._n_taken >= n_here

    def take(self, n_wanted: int) -> tuple[np.ndarray, list[float]]:
        """Return the samples of the next step [n], and when each audio token was whole.

        `n_wanted` samples complete the first audio token.
        """
        parts = [np.zeros(0, np.float32)]
        n_taken = 0
        completed_at: list[float] = []
        while self._blocks and n_taken < MAX_STEP_SAMPLES:
            block = self._blocks.popleft()
            parts.append(block.samples)
            n_taken += len(block.samples)
            while n_taken >= n_wanted:
                completed_at.append(block.time)
                n_wanted += SAMPLES_PER_AUDIO_TOKEN
        self.n_samples -= n_taken
        self._n_taken += n_taken
        return np.concatenate(parts), completed_at
