"""Sliding-window self-attention over a ring of past keys."""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxmlx.config import DecoderConfig, EncoderConfig
from voxmlx.kernels import rotate
from voxmlx.model.cache import RingKVCache, RingStep
from voxmlx.model.linear import matmul
from voxmlx.model.rope import RotaryEmbedding

__all__ = ["Attention", "Step", "begin_step"]


class StreamStep(NamedTuple):
    """One stream's part of a step: its ring, where it goes, which positions it has."""

    cache: RingKVCache
    ring: RingStep
    positions: slice
    angles: mx.array  # real and imaginary parts side by side


class Step:
    """The rings, slots and angles that all layers of one transformer step share."""

    __slots__ = ("angles", "rotates_entries", "streams")

    def __init__(self, streams: Sequence[StreamStep], angles: mx.array) -> None:
        self.streams, self.angles = streams, angles
        # The attention of some steps angles queries and keys itself.
        self.rotates_entries = all(
            s.cache.rotates_entries(s.ring, s.positions.stop - s.positions.start)
            for s in streams
        )


def begin_step(
    caches: Sequence[RingKVCache], rotary: RotaryEmbedding, sizes: Sequence[int]
) -> Step:
    """Advance each of `caches` by its size and prepare what the layers need.

    A single cache may have several rows in step; several have one each, and their
    positions lie `stack_streams` each other.
    """
    if len(caches) == 1:
        angles = rotary.angles(caches[0].offset, sizes[0])
        plan = caches[0].advance(sizes[0])
        stream = StreamStep(
            caches[0], plan, slice(0, sizes[0]), angles.view(mx.float32)
        )
        return Step([stream], angles)
    positions = [
        cache.offset + np.arange(n, dtype=np.uint64)
        for cache, n in zip(caches, sizes, strict=True)
    ]
    angles = rotary.angles(np.concatenate(positions), 1)
    streams: list[StreamStep] = []
    first = 0
    for cache, n in zip(caches, sizes, strict=True):
        place = slice(first, first + n)
        own = angles[place].swapaxes(0, 1).view(mx.float32)
        streams.append(StreamStep(cache, cache.advance(n), place, own))
        first += n
    return Step(streams, angles)


class Attention(nn.Module):
    """Grouped-query attention [B, T, dim] -> [B, T, dim]; q, k, v in one product.

    With `bias`, the queries, values and outputs have one and the keys do not; the
    keys' part of the packed bias is zero. The output's bias is left to the caller.
    """

    def __init__(self, config: EncoderConfig | DecoderConfig, *, bias: bool) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.n_kv_heads = config.n_kv_heads
        self.head_dim = config.head_dim
        n_rows = (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
        self.qkv_proj = nn.Linear(config.dim, n_rows, bias=bias)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, config.dim, bias=bias)

    def __call__(self, x: mx.array, layer: int, step: Step) -> mx.array:
        B, T, _ = x.shape
        bias: mx.array | None = self.qkv_proj.get("bias")
        qkv = matmul(self.qkv_proj, x)
        if not step.rotates_entries:
            qkv = rotate(qkv, step.angles, bias)
        if len(step.streams) == 1:
            out = self._attend(qkv, bias, layer, step, step.streams[0])
        else:
            # Every stream attends to its own ring, as it lies and as far as it is
            # filled: streams of any age share a step without a copy or a mask for
            # the others. Positions are along the batch here, and along T in a ring.
            parts = [
                self._attend(qkv[s.positions].swapaxes(0, 1), bias, layer, step, s)
                for s in step.streams
            ]
            out = mx.concatenate(parts, axis=1)
        return matmul(self.o_proj, out.reshape(B, T, -1))

    def _attend(
        self,
        qkv: mx.array,
        bias: mx.array | None,
        layer: int,
        step: Step,
        stream: StreamStep,
    ) -> mx.array:
        """Queries, keys and values of one stream [B, T, H D] -> [B, T, Hq, D]."""
        cache, scale = stream.cache, self.head_dim**-0.5
        if step.rotates_entries:
            return cache.attend_window(
                layer, qkv, stream.angles, bias, stream.ring, scale
            )
        B, T, _ = qkv.shape
        qkv = qkv.reshape(B, T, -1, self.head_dim).swapaxes(1, 2)
        queries, kv = qkv[:, : self.n_heads], qkv[:, self.n_heads :]
        return cache.attend(layer, queries, kv, stream.ring, scale).swapaxes(1, 2)
