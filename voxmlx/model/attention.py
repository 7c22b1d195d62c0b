"""Sliding-window self-attention over a ring of past keys."""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxmlx.config import DecoderConfig, EncoderConfig
from voxmlx.kernels import rotate
from voxmlx.model.cache import RingKVCache, RingStep
from voxmlx.model.product import product
from voxmlx.model.rope import Rotary

__all__ = ["Attention", "Step", "begin_step"]


class StreamStep(NamedTuple):
    """One stream's part of a step: its ring, where it goes, which positions it has."""

    cache: RingKVCache
    ring: RingStep
    positions: slice


class Step:
    """What every layer of one transformer step shares: rings, slots and angles."""

    __slots__ = ("streams", "turns")

    def __init__(self, streams: Sequence[StreamStep], turns: mx.array) -> None:
        self.streams, self.turns = streams, turns


def begin_step(
    caches: Sequence[RingKVCache], rotary: Rotary, sizes: Sequence[int]
) -> Step:
    """Advance each of `caches` by its size and prepare what the layers need.

    A single cache may have several rows in step; several have one each, and their
    positions lie `beside` each other.
    """
    if len(caches) == 1:
        turns = rotary.turns(caches[0].position, sizes[0])
    else:
        positions = [
            cache.position + np.arange(n, dtype=np.uint64)
            for cache, n in zip(caches, sizes, strict=True)
        ]
        turns = rotary.turns(np.concatenate(positions), 1)
    streams: list[StreamStep] = []
    first = 0
    for cache, n in zip(caches, sizes, strict=True):
        streams.append(StreamStep(cache, cache.advance(n), slice(first, first + n)))
        first += n
    return Step(streams, turns)


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
        n_rotated = self.n_heads + self.n_kv_heads
        bias: mx.array | None = self.qkv_proj.get("bias")
        if bias is not None:
            bias = bias.reshape(-1, self.head_dim)
        qkv = product(self.qkv_proj, x).reshape(B, T, -1, self.head_dim).swapaxes(1, 2)
        qk = rotate(
            qkv[:, :n_rotated], step.turns, None if bias is None else bias[:n_rotated]
        )  # [B, H, T, D]
        out = self._attend(qk, qkv[:, n_rotated:], layer, step).swapaxes(1, 2)
        if bias is not None:
            # Weights sum to one, so the values' bias may come after them: in the
            # launch that puts heads beside each other anyhow, and not in the ring.
            out = out.reshape(B, T, self.n_kv_heads, -1, self.head_dim)
            out = out + bias[n_rotated:, None]
        return product(self.o_proj, out.reshape(B, T, -1))

    def _attend(
        self, qk: mx.array, values: mx.array, layer: int, step: Step
    ) -> mx.array:
        """Queries and keys [B, H, T, D] and values -> [B, Hq, T, D].

        Every stream attends to its own ring, as it lies and as far as it is filled:
        streams of any age share a step without a copy or a mask for the others.
        """
        if len(step.streams) == 1:
            return self._attend_one(qk, values, layer, step.streams[0])
        parts: list[mx.array] = []
        for stream in step.streams:
            # Positions are along the batch here, and along T in a ring.
            part = self._attend_one(
                qk[stream.positions].swapaxes(0, 2),
                values[stream.positions].swapaxes(0, 2),
                layer,
                stream,
            )
            parts.append(part.swapaxes(0, 2))
        return mx.concatenate(parts)

    def _attend_one(
        self, qk: mx.array, values: mx.array, layer: int, stream: StreamStep
    ) -> mx.array:
        return stream.cache.attend(
            layer,
            qk[:, : self.n_heads],
            qk[:, self.n_heads :],
            values,
            stream.ring,
            self.head_dim**-0.5,
        )
