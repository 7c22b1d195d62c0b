"""Streams of any number side by side, as one step of a transformer takes them."""

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

__all__ = ["concat_positions", "split", "stack_streams", "unstack_streams"]


def stack_streams(arrays: Sequence[mx.array]) -> mx.array:
    """[1, n, dim] of each of several streams -> [N, 1, dim], N positions in all.

    Whatever looks at one position alone then needs to know nothing of streams, and
    what a stream has a norm of its own for finds a row per position. The array of a
    single stream stays as it is.
    """
    if len(arrays) == 1:
        return arrays[0]
    return mx.concatenate(list(arrays), axis=1).swapaxes(0, 1)


def unstack_streams(x: mx.array, sizes: Sequence[int]) -> list[mx.array]:
    """Undo `stack_streams`: return [1, n, dim] for each n of `sizes`."""
    return [x] if len(sizes) == 1 else split(x.swapaxes(0, 1), sizes)


def concat_positions(arrays: Sequence[mx.array]) -> mx.array:
    """[B, n, ...] of each -> [B, N, ...]."""
    return arrays[0] if len(arrays) == 1 else mx.concatenate(list(arrays), axis=1)


def split(x: mx.array, sizes: Sequence[int]) -> list[mx.array]:
    """Undo `concat_positions`: return [B, n, ...] for each n of `sizes`."""
    if len(sizes) == 1:
        return [x]
    ends = np.cumsum(sizes)
    return [x[:, end - n : end] for end, n in zip(ends.tolist(), sizes, strict=True)]
