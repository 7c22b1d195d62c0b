"""Attention where an exponential is dear: MLX's CPU backend."""

import math

import mlx.core as mx

__all__ = ["is_pow_attention_faster", "pow_attention"]

# From so many queries on it pays to lay the keys out as columns: the BLAS of MLX's
# wheel for Linux adds columns up two or three times faster than it multiplies rows.
_MANY_QUERIES = 16
# Of fewer weights than these, more operations cost more than dearer ones.
_MIN_WEIGHTS = 2048


def is_pow_attention_faster(queries: mx.array, keys: mx.array) -> bool:
    """Return whether `pow_attention` is faster than MLX's attention, off Metal.

    MLX's exp takes 11 ns an element there, its power 4 (on a Xeon).
    """
    n_weights = queries.shape[1] * queries.shape[2] * keys.shape[2]
    return queries.dtype == mx.float32 and n_weights >= _MIN_WEIGHTS


def pow_attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    mask: mx.array | None,
    scale: float,
) -> mx.array:
    """`attention_reference` by e^(scale x) = (e^scale)^x: same shapes, same result."""
    B, Hq, T, D = queries.shape
    Hk = keys.shape[1]
    # Queries that share keys lie below each other: one product for all of them.
    q = mx.reshape(queries, (B, Hk, -1, D))
    columns = keys.swapaxes(-1, -2)
    if T >= _MANY_QUERIES:
        columns = mx.contiguous(columns)
    scores = q @ columns
    if mask is not None:
        hidden = mx.where(mask, 0.0, -mx.inf)
        if T > 1 and Hq > Hk:
            hidden = mx.tile(hidden, (1, 1, Hq // Hk, 1))
        scores = scores + hidden
    weights = mx.power(math.exp(scale), scores - scores.max(axis=-1, keepdims=True))
    seen = (weights @ values) / weights.sum(axis=-1, keepdims=True)
    return mx.reshape(seen, (B, Hq, T, D))
