"""Gradients of more rows, made in a second process of the lowest priority."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable

import torch

from training.model import TinyConfig, TinyVoxtral
from training.streams import Batch, StreamMaker

__all__ = ["Partner"]

_POLL_S = 0.002

# Given the model once, adds the gradient of a batch's summed loss and counts tokens.
GradientMaker = Callable[[TinyVoxtral], Callable[[Batch], int]]


class _Exchange:
    """Flat weights one way, flat gradients the other, in shared memory."""

    def __init__(self, n_weights: int) -> None:
        self.weights = torch.zeros(n_weights).share_memory_()
        self.gradients = torch.zeros(n_weights).share_memory_()
        # Tokens that the gradients are the sum of; 0 while they are being made.
        self.n_counted = torch.zeros(1, dtype=torch.int64).share_memory_()


@torch.no_grad()
def _spread(flat: torch.Tensor, tensors: Iterable[torch.Tensor]) -> None:
    position = 0
    for tensor in tensors:
        n = tensor.numel()
        tensor.copy_(flat[position : position + n].view_as(tensor))
        position += n


def _work(
    exchange: _Exchange,
    config: TinyConfig,
    make_streams: Callable[[int], StreamMaker],
    make_gradient: GradientMaker,
    n_rows: int,
    seed: int,
    core: int | None,
) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    os.nice(19)
    torch.set_num_threads(1)
    model = TinyVoxtral(config)
    weights = list(model.parameters())
    add_gradient = make_gradient(model)
    streams = make_streams(seed)
    batch = streams.batch(n_rows)
    while os.getppid() != 1:
        if exchange.n_counted.item():
            time.sleep(_POLL_S)
            continue
        _spread(exchange.weights, weights)
        model.zero_grad()
        n_counted = add_gradient(batch)
        torch.cat([weight.grad.flatten() for weight in weights], out=exchange.gradients)
        exchange.n_counted.fill_(n_counted)
        batch = streams.batch(n_rows)


class Partner:
    """A process whose gradients join the trainer's, of weights a step or two old."""

    def __init__(
        self,
        model: TinyVoxtral,
        make_streams: Callable[[int], StreamMaker],
        make_gradient: GradientMaker,
        n_rows: int,
        seed: int,
        core: int | None,
    ) -> None:
        self._weights = list(model.parameters())
        self._exchange = _Exchange(sum(w.numel() for w in self._weights))
        self.n_joined = 0
        self._send()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_work,
            args=(
                self._exchange,
                model.config,
                make_streams,
                make_gradient,
                n_rows,
                seed,
                core,
            ),
            daemon=True,
        )
        self._process.start()

    @torch.no_grad()
    def _send(self) -> None:
        flat = [weight.flatten() for weight in self._weights]
        torch.cat(flat, out=self._exchange.weights)
        self._exchange.n_counted.zero_()

    @torch.no_grad()
    def join(self) -> int:
        """Add its gradient to the weights', if one is ready; the tokens in it or 0."""
        n_counted = int(self._exchange.n_counted.item())
        if not n_counted:
            return 0
        position = 0
        for weight in self._weights:
            assert weight.grad is not None
            n = weight.numel()
            flat = self._exchange.gradients[position : position + n]
            weight.grad += flat.view_as(weight)
            position += n
        self.n_joined += 1
        self._send()  # before the step: one step older, but never waited for
        return n_counted

    def close(self) -> None:
        self._process.terminate()
