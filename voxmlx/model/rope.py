"""Rotary angles that stay exact however long a stream runs."""

import math

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

__all__ = ["Rotary"]


class Rotary:
    """cos + i sin of position * theta^(-2i / D) for i < D / 2.

    Angles are counted in turns as 64-bit fixed-point fractions, so multiplying by
    a position wraps at whole turns of its own accord: the angle between two
    positions depends on their distance alone, exactly, wherever the stream is,
    and a position is a fixed-size number for ever. In float32, the usual way, the
    angle of position 180 000 is off by 1e-2 rad.
    """

    def __init__(self, head_dim: int, theta: float) -> None:
        turns = theta ** (-np.arange(0, head_dim, 2) / head_dim) / (2 * math.pi)
        self._turns = np.array([round(t * 2**64) for t in turns.tolist()], np.uint64)

    def turns(self, positions: NDArray[np.uint64], n: int) -> mx.array:
        """cos + i sin [B, 1, n, D / 2], complex64, of n positions from positions [B]."""
        steps = positions[:, None] + np.arange(n, dtype=np.uint64)
        turns = steps[:, None, :, None] * self._turns
        # Read as signed, a fraction of a turn lies in [-1/2, 1/2).
        angle = turns.view(np.int64) * (2 * math.pi / 2**64)
        return mx.array(np.exp(1j * angle).astype(np.complex64))
