"""Rotary angles that stay exact however long a stream runs."""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["RotaryEmbedding"]


class RotaryEmbedding:
    """cos + i sin of position * theta^(-2i / D) for i < D / 2.

    Angles are counted in full rotations as 64-bit fixed-point fractions, so multiplying by
    a position wraps at whole rotations of its own accord: the angle between two
    positions depends on their distance alone, exactly, wherever the stream is,
    and a position is a fixed-size number for ever. In float32, the usual way, the
    angle of position 180 000 is off by 1e-2 rad.
    """

    def __init__(self, head_dim: int, theta: float, n_query_groups: int = 1) -> None:
        """`n_query_groups` is how many query heads share a key."""
        cycles = theta ** (-np.arange(0, head_dim, 2) / head_dim) / (2 * math.pi)
        self._cycles = np.array([round(t * 2**64) for t in cycles.tolist()], np.uint64)
        self._n_rotated = n_query_groups + 1

    def angles(self, positions: NDArray[np.uint64], n: int) -> NDArray[np.complex64]:
        """Return the angles of n positions from `positions` [B] on.

        They are cos + i sin, complex64 [B, n, R, 1, D / 2], for R groups of heads:
        those of the queries, the keys and the values. A value is not rotated.
        """
        steps = positions[:, None] + np.arange(n, dtype=np.uint64)
        cycles = steps[:, :, None, None] * self._cycles
        # Read as signed, a fraction of a rotation lies in [-1/2, 1/2).
        angle = cycles.view(np.int64) * (2 * math.pi / 2**64)
        B, _, _, half = angle.shape
        of_groups = np.ones((B, n, self._n_rotated + 1, 1, half), np.complex64)
        of_groups[:, :, :-1, 0] = np.exp(1j * angle)
        return of_groups
