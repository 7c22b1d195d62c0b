"""Logits -> ids: the greedy choice, and where rounding might decide it."""

from collections.abc import Callable
from functools import cache

import mlx.core as mx
import numpy as np

from voxmlx.config import EOS_ID
from voxmlx.kernels import runs_in_numpy
from voxmlx.kernels.evaluation import as_numpy, evaluate

__all__ = ["Choose", "doubtful", "greedy", "logits_of"]

# A way to choose an id: logits [1, vocab] -> id [1] int32.
Choose = Callable[[mx.array], mx.array]

# Of several positions in one pass, an id is taken only where it leads by more than
# so many of its logit's last places; else it is left to a pass of its own.
DOUBT_ULPS = 16


def greedy(logits: mx.array) -> mx.array:
    """The most probable id of each row of [B, vocab] that is not EOS: [B] int32.

    Where a row holds a NaN, that may be taken for the greatest, or be overlooked
    beside numbers, as MLX's backends have it: `logits_of` tells which.
    """
    if runs_in_numpy(logits):
        possible = np.array(as_numpy(logits))
        possible[:, EOS_ID : EOS_ID + 1] = -np.inf
        return mx.array(possible.argmax(-1).astype(np.int32))
    possible = mx.where(_is_eos(logits.shape[-1]), -mx.inf, logits)
    return mx.argmax(possible, axis=-1).view(mx.int32)  # a cast would be a launch


def logits_of(ids: mx.array, logits: mx.array) -> mx.array:
    """Return from logits [n, vocab] the logit of one id each: [n]."""
    if runs_in_numpy(logits):
        rows = as_numpy(logits)
        return mx.array(rows[np.arange(len(rows)), as_numpy(ids)])
    return mx.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]


def doubtful(logits: mx.array, best: mx.array) -> mx.array:
    """Return [n]: does the `best` id lead the next by so little that rounding decides?"""
    ids = mx.arange(logits.shape[-1])
    others = (ids != best[:, None]) & ~_is_eos(logits.shape[-1])
    second = mx.where(others, logits, -mx.inf).max(axis=-1)
    first = logits_of(best, logits)
    doubt = DOUBT_ULPS * mx.finfo(logits.dtype).eps * mx.abs(first)
    return (first - second).astype(mx.float32) < doubt


@cache
def _is_eos(vocab_size: int) -> mx.array:
    mask = mx.arange(vocab_size) == EOS_ID
    evaluate(mask)
    return mask
