"""Batches made in another process while the trainer's core does matrices."""

import multiprocessing
import os
import queue
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch

from training.streams import Batch, StreamMaker

_N_WAITING = 12
_PATIENCE_S = 5.0

__all__ = ["Feeder"]


def _make(
    batches: multiprocessing.Queue,
    make_streams: Callable[[int], StreamMaker],
    n_rows: int,
    seed: int,
    core: int | None,
) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    os.nice(10)
    torch.set_num_threads(1)
    streams = make_streams(seed)
    arrays: list[np.ndarray] | None = None
    while os.getppid() != 1:  # the trainer may be killed while this waits for room
        if arrays is None:
            b = streams.batch(n_rows)
            tensors = (b.log_mel, b.token_ids, b.targets, b.delay_tokens)
            arrays = [tensor.numpy() for tensor in tensors]
        with suppress(queue.Full):
            batches.put(arrays, timeout=_PATIENCE_S)
            arrays = None


class Feeder:
    """Takes batches from a process of low priority, or makes one where none waits."""

    def __init__(
        self,
        make_streams: Callable[[int], StreamMaker],
        n_rows: int,
        seed: int,
        core: int | None,
    ) -> None:
        """`make_streams` is called with a seed, here and in the process."""
        self._streams = make_streams(seed)
        self._n_rows = n_rows
        self.n_made_here = 0
        context = multiprocessing.get_context("spawn")
        self._batches = context.Queue(_N_WAITING)
        self._process = context.Process(
            target=_make,
            args=(self._batches, make_streams, n_rows, seed + 500, core),
            daemon=True,
        )
        self._process.start()

    def batch(self) -> Batch:
        try:
            arrays = self._batches.get_nowait()
        except queue.Empty:
            self.n_made_here += 1
            return self._streams.batch(self._n_rows)
        return Batch(*(torch.from_numpy(array) for array in arrays))

    def close(self) -> None:
        self._process.terminate()
