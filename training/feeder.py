"""Batches made in another process while the trainer's core does matrices."""

import multiprocessing
import os
import queue
from collections.abc import Callable

import torch

from training.streams import Batch, StreamMaker

_N_WAITING = 12

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
    while os.getppid() != 1:
        batch = streams.batch(n_rows)
        arrays = (batch.log_mel, batch.token_ids, batch.targets, batch.delay_tokens)
        batches.put([array.numpy() for array in arrays])


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
