"""Blocks of sound between the thread that hears and the one that decodes."""

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

__all__ = ["Block", "BlockQueue"]


@dataclass(frozen=True, slots=True)
class Block:
    """Mono float32 samples, and when the last of them was there: monotonic seconds."""

    samples: np.ndarray
    time: float


class BlockQueue:
    """First in, first out, `max_samples` at most (one block always fits).

    One thread puts, one takes. A block that finds no room waits or is counted in
    `n_lost`, as the one who puts it wants.
    """

    def __init__(self, max_samples: int) -> None:
        self._max_samples = max_samples
        self._n_waiting = 0
        self._blocks: deque[Block] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self.n_lost = 0

    def put(self, block: Block, *, wait: bool) -> bool:
        """Add a block; False if it was lost, or if the queue was closed meanwhile."""
        with self._changed:
            while self._is_full(block) and not self._is_closed:
                if not wait:
                    self.n_lost += 1
                    return False
                self._changed.wait()
            if self._is_closed:
                return False
            self._blocks.append(block)
            self._n_waiting += len(block.samples)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float) -> list[Block]:
        """Return all waiting blocks; wait up to `timeout_s` seconds if there are none."""
        with self._changed:
            if not self._blocks and not self._is_closed:
                self._changed.wait(timeout_s)
            blocks = list(self._blocks)
            self._blocks.clear()
            self._n_waiting = 0
            self._changed.notify_all()
            return blocks

    def close(self) -> None:
        """Take nothing more in, and let go whoever waits. What is there stays."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _is_full(self, block: Block) -> bool:
        n_after = self._n_waiting + len(block.samples)
        return n_after > self._max_samples and bool(self._blocks)
