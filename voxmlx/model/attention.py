"""Sliding-window self-attention over a ring of past keys."""

# pyright: standard
# mlx.nn has no types.

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from voxmlx.config import DecoderConfig, EncoderConfig
from voxmlx.kernels import Rotation, rotation
from voxmlx.model.cache import RingKVCache
from voxmlx.model.ring_step import RingStep
from voxmlx.model.rope import RotaryEmbedding

__all__ = ["Attention", "Step", "begin_step"]


class StreamStep(NamedTuple):
    """One stream's part of a step: its ring, where it goes, which positions it has."""

    cache: RingKVCache
    ring: RingStep
    positions: slice
    angles: mx.array | None  # for `attend_window`


class Step:
    """The rings, slots and angles that all layers of one transformer step share."""

    __slots__ = (
        "_n_kv_heads",
        "_rotation",
        "angles",
        "rotates_entries",
        "streams",
        "window",
    )

    def __init__(
        self,
        caches: Sequence[RingKVCache],
        sizes: Sequence[int],
        angles: NDArray[np.complex64],
        n_kv_heads: int,
    ) -> None:
        plans = [c.advance(n) for c, n in zip(caches, sizes, strict=True)]
        # The attention of some steps rotates queries and keys itself.
        self.rotates_entries = all(
            cache.rotates_entries(plan, n)
            for cache, plan, n in zip(caches, plans, sizes, strict=True)
        )
        self.angles = angles
        self._n_kv_heads = n_kv_heads
        self._rotation: Rotation | None = None
        self.streams: list[StreamStep] = []
        first = 0
        for cache, plan, n in zip(caches, plans, sizes, strict=True):
            place, own = slice(first, first + n), None
            if self.rotates_entries:
                parts = angles.view(np.float32)
                # Positions of several streams are along the batch.
                own = mx.array(
                    parts if len(caches) == 1 else parts[place].swapaxes(0, 1)
                )
            self.streams.append(StreamStep(cache, plan, place, own))
            first += n
        # The only stream of a step whose attention rotates.
        is_alone = self.rotates_entries and len(caches) == 1
        self.window = self.streams[0] if is_alone else None

    @property
    def rotation(self) -> Rotation | None:
        """Return the angles as layers need them; None where attention rotates."""
        if self._rotation is None and not self.rotates_entries:
            self._rotation = rotation(self.angles, self._n_kv_heads)
        return self._rotation


def begin_step(
    caches: Sequence[RingKVCache],
    rotary: RotaryEmbedding,
    sizes: Sequence[int],
    n_kv_heads: int,
) -> Step:
    """Advance each of `caches` by its size and prepare what the layers need.

    A single cache may have several rows in step; several have one each, and their
    positions are stacked as `stack_streams` does it.
    """
    if len(caches) == 1:
        angles = rotary.angles(caches[0].offset, sizes[0])
    else:
        positions = [
            cache.offset + np.arange(n, dtype=np.uint64)
            for cache, n in zip(caches, sizes, strict=True)
        ]
        angles = rotary.angles(np.concatenate(positions), 1)
    return Step(caches, sizes, angles, n_kv_heads)


class Attention(nn.Module):
    """Grouped-query attention: weights, q, k, v in one product, and `attend`.

    With `bias`, the queries, values and outputs have one and the keys do not; the
    keys' part of the packed bias is zero. The products are left to the layer.
    """

    def __init__(self, config: EncoderConfig | DecoderConfig, *, bias: bool) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.n_kv_heads = config.n_kv_heads
        self.head_dim = config.head_dim
        self.scale = config.head_dim**-0.5
        n_rows = (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
        self.qkv_proj = nn.Linear(config.dim, n_rows, bias=bias)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, config.dim, bias=bias)

    def attend(self, qkv: mx.array, layer: int, step: Step) -> mx.array:
        """Keep keys and values, and attend: [B, T, H D] -> B T Hq D numbers.

        Queries and keys are rotated, unless `step.rotates_entries`.
        """
        bias: mx.array | None = self["qkv_proj"].get("bias")
        if len(step.streams) == 1:
            return self._attend(qkv, bias, layer, step, step.streams[0])
        # Every stream attends to its own ring, as it lies and as far as it is
        # filled: streams of any age share a step without a copy or a mask for
        # the others. Positions are along the batch here, and along T in a ring.
        width = self.n_heads * self.head_dim
        parts = [
            # One position or several: in the same order either way.
            self._attend(qkv[s.positions].swapaxes(0, 1), bias, layer, step, s).reshape(
                1, -1, width
            )
            for s in step.streams
        ]
        return mx.concatenate(parts, axis=1)

    def _attend(
        self,
        qkv: mx.array,
        bias: mx.array | None,
        layer: int,
        step: Step,
        stream: StreamStep,
    ) -> mx.array:
        """Queries, keys and values of one stream [B, T, H D] -> [B, T, Hq, D].

        Of one position, [B, Hq, 1, D].
        """
        cache, scale = stream.cache, self.scale
        if step.rotates_entries:
            assert stream.angles is not None
            return cache.attend_window(
                layer, qkv, stream.angles, bias, stream.ring, scale
            )
        B, T, _ = qkv.shape
        if T == 1:  # in the same order either way
            qkv = qkv.reshape(B, -1, 1, self.head_dim)
        else:
            qkv = qkv.reshape(B, T, -1, self.head_dim).swapaxes(1, 2)
        queries, kv = mx.split(qkv, [self.n_heads], axis=1)
        out = cache.attend(layer, queries, kv, stream.ring, scale)
        return out.swapaxes(1, 2) if T > 1 else out
