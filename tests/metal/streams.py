"""Rings of several streams, as sessions of different age leave them."""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

__all__ = ["DTYPES", "Entries", "Rings", "entries", "error_bounds", "normal", "rings"]

DTYPES = [mx.float32, mx.float16, mx.bfloat16]

# Half a unit in the last place of a result, relative to it: results are rounded once.
_ROUNDING = {mx.float32: 2.0**-24, mx.float16: 2.0**-11, mx.bfloat16: 2.0**-8}

# Sums of up to 8192 products in float32 in another order; the weights sum to one and
# the values are of the order of one.
_SUMMATION = 3e-6


@dataclass(frozen=True, slots=True)
class Rings:
    """What attention over rings is called with; keys and values in any dtype."""

    queries: mx.array
    keys: mx.array
    values: mx.array
    meta: mx.array
    scale: float


def normal(rng: np.random.Generator, *shape: int, dtype: mx.Dtype) -> mx.array:
    return mx.array(rng.standard_normal(shape).astype(np.float32)).astype(dtype)


def rings(
    dtype: mx.Dtype,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    n_queries: int,
    capacity: int,
    window: int,
    n_written: list[int],
) -> Rings:
    """Random rings into which each stream has written so many entries so far."""
    rng = np.random.default_rng([heads, kv_heads, n_queries, capacity, *n_written])
    B = len(n_written)
    shape = (B, kv_heads, capacity, head_dim)
    meta = [[n % capacity, min(n, capacity), window] for n in n_written]
    return Rings(
        # Twice the usual spread: some keys matter much more than others.
        queries=2 * normal(rng, B, heads, n_queries, head_dim, dtype=dtype),
        keys=normal(rng, *shape, dtype=dtype),
        values=normal(rng, *shape, dtype=dtype),
        meta=mx.array(meta, mx.int32),
        scale=head_dim**-0.5,
    )


@dataclass(frozen=True, slots=True)
class Entries:
    """What `window_attention` is called with, of streams of different age."""

    qkv: mx.array
    angles: mx.array
    bias: mx.array | None
    ring: mx.array
    meta: mx.array
    scale: float

    def arguments(self) -> tuple[Any, ...]:
        return (self.qkv, self.angles, self.bias, self.ring, self.meta, self.scale)


def entries(
    dtype: mx.Dtype,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    n_queries: int,
    capacity: int,
    window: int,
    n_written: list[int],
    has_bias: bool = True,
) -> Entries:
    """Entries as a product leaves them, after so many of each stream."""
    rng = np.random.default_rng([heads, kv_heads, n_queries, capacity, *n_written])
    B, n_heads = len(n_written), heads + 2 * kv_heads
    angle = rng.uniform(-4, 4, (B, n_queries, 1, 1, head_dim // 2))
    angles = np.ones(
        (B, n_queries, heads // kv_heads + 2, 1, head_dim // 2), np.complex64
    )
    angles[:, :, :-1] = np.exp(1j * angle)
    meta = [[n % capacity, min(n, capacity), window] for n in n_written]
    bias = normal(rng, n_heads * head_dim, dtype=dtype) if has_bias else None
    return Entries(
        qkv=2 * normal(rng, B, n_queries, n_heads * head_dim, dtype=dtype),
        angles=mx.array(angles).view(mx.float32),
        bias=bias,
        ring=normal(rng, B, 2 * kv_heads, capacity, head_dim, dtype=dtype),
        meta=mx.array(meta, mx.int32),
        scale=head_dim**-0.5,
    )


def error_bounds(exact: mx.array, dtype: mx.Dtype) -> mx.array:
    """How far a result in `dtype` may be from `exact`, computed in float32."""
    return mx.abs(exact) * _ROUNDING[dtype] * 1.001 + _SUMMATION
