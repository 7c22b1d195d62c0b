"""One step of a ring: where its entries go, and what its queries may see."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

__all__ = ["RingStep", "updated", "written"]


@dataclass(slots=True)
class RingStep:
    """Slots for the T entries of one step, and the slots that its queries may see.

    The same for every layer, so it is worked out once per step. `slots` is a
    number where the entries lie side by side in the same place of every row.
    """

    slots: int | NDArray[np.int64]
    n_visible: int
    # Computes [B or 1, 1, T, S], None where all sees all: not every attention asks.
    visible: Callable[[], NDArray[np.bool_] | None]
    history: NDArray[np.int64] | None  # slots of earlier entries, when they are copied
    n_written: int
    # Computes {end, held, window} of each row [B, 3], int32, once the step is in the
    # ring; None where it has then lost what its first query may see.
    positions: Callable[[], NDArray[np.int32]] | None
    # The same before it; None also where the entries do not lie side by side.
    older: Callable[[], NDArray[np.int32]] | None = None
    _mask: mx.array | None = None
    _has_mask: bool = False
    _meta: mx.array | None = None
    _indices: tuple[mx.array | None, mx.array] | None = None

    @property
    def mask(self) -> mx.array | None:
        """`visible` for attention; one array for all layers."""
        if not self._has_mask:
            visible = self.visible()
            self._mask = None if visible is None else _to_mx(visible)
            self._has_mask = True
        return self._mask

    @property
    def meta(self) -> mx.array:
        """Return what `positions` computes, for attention; one array for all layers."""
        if self._meta is None:
            assert self.positions is not None
            self._meta = mx.array(self.positions())
        return self._meta

    @property
    def meta_of_older(self) -> mx.array:
        """Return what `older` computes, for attention; one array for all layers."""
        if self._meta is None:
            assert self.older is not None
            self._meta = mx.array(self.older())
        return self._meta

    @property
    def indices(self) -> tuple[mx.array | None, mx.array]:
        """Return `history` and `slots` for MLX; the same arrays for all layers."""
        if self._indices is None:
            assert not isinstance(self.slots, int)
            history = None if self.history is None else mx.array(self.history)
            self._indices = history, mx.array(self.slots)
        return self._indices


def _to_mx(mask: Any) -> mx.array:
    """mx.array's annotation leaves out NumPy's bool; the function does not."""
    return mx.array(mask)


def written(ring: mx.array, x: mx.array, slot: int) -> mx.array:
    """Return the ring with x [B, 2 H, n, D] stored from `slot` on."""
    # Assigning through another name leaves the ring of a copied state alone, and
    # a slot known beforehand saves the launch that mx.slice_update's takes.
    ring = ring.__copy__()
    ring[:, :, slot : slot + x.shape[2]] = x
    return ring


def updated(ring: mx.array, x: mx.array, plan: RingStep) -> tuple[mx.array, mx.array]:
    """Return the entries to attend to, and the ring with x [B, 2 H, n, D] stored."""
    if isinstance(plan.slots, int):
        ring = written(ring, x, plan.slots)
        if plan.n_visible == ring.shape[2]:
            return ring, ring
        return ring[:, :, : plan.n_visible], ring
    B, H, _, D = ring.shape
    seen = x
    history, slots = plan.indices
    if history is not None:
        index = mx.broadcast_to(history[:, None, :, None], (B, H, history.shape[1], D))
        seen = mx.concatenate([mx.take_along_axis(ring, index, axis=2), x], axis=2)
    index = mx.broadcast_to(slots[:, None, :, None], (B, H, plan.n_written, D))
    return seen, mx.put_along_axis(ring, index, x[:, :, -plan.n_written :], axis=2)
