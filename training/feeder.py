"""Batches made in other processes while the trainer does matrices."""

import os
import queue
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import multiprocessing

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
    batch: Batch | None = None
    while os.getppid() != 1:  # the trainer may be killed while this waits for room
        batch = batch or streams.batch(n_rows)
        with suppress(queue.Full):
            batches.put(batch, timeout=_PATIENCE_S)
            batch = None


class Feeder:
    """Takes batches from processes of low priority.

    One process shares the trainer's few cores: where it has none ready, the trainer
    makes a batch itself. With more, the trainer waits.
    """

    def __init__(
        self,
        make_streams: Callable[[int], StreamMaker],
        n_rows: int,
        n_processes: int,
        seed: int,
        core: int | None,
    ) -> None:
        """`make_streams` is called with a seed, here and in each process."""
        self._streams = make_streams(seed) if n_processes == 1 else None
        self._n_rows = n_rows
        self.n_made_here = 0
        context = multiprocessing.get_context("spawn")
        # Tensors travel in shared memory.
        self._batches = context.Queue(_N_WAITING)
        self._processes = [
            context.Process(
                target=_make,
                args=(self._batches, make_streams, n_rows, seed + 500 + i, core),
                daemon=True,
            )
            for i in range(n_processes)
        ]
        for process in self._processes:
            process.start()

    def batch(self) -> Batch:
        if self._streams is None:
            return self._batches.get()
        try:
            return self._batches.get_nowait()
        except queue.Empty:
            self.n_made_here += 1
            return self._streams.batch(self._n_rows)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
