"""Reference operations over a ring of past keys, in plain mx."""

import mlx.core as mx

from voxmlx.kernels.reference import attention_reference, rotate_reference

__all__ = [
    "SCALE_BYTES",
    "dequantize_rows",
    "quantize_rows_reference",
    "ring_attention_q8_reference",
    "ring_attention_reference",
    "visible_slots",
    "window_attention_reference",
]

# A quantized row ends with its scale, a float.
SCALE_BYTES = 4

_LARGEST = 127


def quantize_rows_reference(kv: mx.array) -> mx.array:
    """Keys and values [B, 2 H, N, D] in 8 bits: int8 [B, 2 H, N, D + 4].

    A row is rint(x / scale), then the bytes of scale = max |x| / 127 as float32 (1 for
    a row of zeros).
    """
    x = kv.astype(mx.float32)
    largest = mx.abs(x).max(axis=-1, keepdims=True)
    scale = mx.where(largest > 0, largest / _LARGEST, 1.0)
    numbers = mx.round(x / scale).astype(mx.int8)
    return mx.concatenate([numbers, scale.view(mx.int8)], axis=-1)


def dequantize_rows(rows: mx.array, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    """Keys and values [B, H, S, D] of rows [B, 2 H, S, D + 4]."""
    numbers, scale = mx.split(rows, [rows.shape[-1] - SCALE_BYTES], axis=-1)
    x = numbers.astype(mx.float32) * scale.view(mx.float32)
    keys, values = mx.split(x.astype(dtype), 2, axis=1)
    return keys, values


def visible_slots(meta: mx.array, n_queries: int, capacity: int) -> mx.array:
    """Return the slots that each query may see: bool [B, 1, n_queries, capacity].

    `meta` [B, 3] int32 has a stream's {end, held, window}: the slot after its newest
    entry, how many entries its ring holds, and how many of the newest a query sees,
    its own included. The queries belong to the newest entries.
    """
    end, held, window = (part[:, None] for part in mx.split(meta, 3, axis=1))
    # Age of a slot: how many entries were written after it.
    age = (end - 1 - mx.arange(capacity)) % capacity  # [B, 1, capacity]
    distance = age - mx.arange(n_queries)[::-1, None]  # [B, n_queries, capacity]
    is_visible = (age < held) & (distance >= 0) & (distance < window)
    return is_visible[:, None]


def ring_attention_reference(
    queries: mx.array, keys: mx.array, values: mx.array, meta: mx.array, scale: float
) -> mx.array:
    """`attention_reference` over rings: what a query sees follows from positions.

    queries [B, H, N, D] of the N newest entries; keys, values [B, Hk, C, D] in any
    rotation; meta as `visible_slots` has it. Returns [B, H, N, D].
    """
    mask = visible_slots(meta, queries.shape[2], keys.shape[2])
    return attention_reference(queries, keys, values, mask, scale)


def window_attention_reference(
    qkv: mx.array,
    angles: mx.array,
    bias: mx.array | None,
    ring: mx.array,
    meta: mx.array,
    scale: float,
) -> tuple[mx.array, mx.array]:
    """Rotate the N newest entries, and attend to them and a ring of older ones.

    qkv [B, N, (H + 2 Hk) D], angles (their parts side by side, [1 or B, N, R, 1, D])
    and bias as `rotate_reference` has them; ring [B, 2 Hk, C, D], keys first; meta as
    `visible_slots` has it, without the newest.
    Returns [B, N, H, D], and the rows [B, 2 Hk, N, D] that the ring has to store.
    """
    B, N, _ = qkv.shape
    _, n_ring_heads, C, D = ring.shape
    turned = rotate_reference(qkv, angles.view(mx.complex64), bias)
    turned = mx.reshape(turned, (B, N, -1, D)).swapaxes(1, 2)
    queries, rows = mx.split(turned, [turned.shape[1] - n_ring_heads], axis=1)
    keys, values = mx.split(mx.concatenate([ring, rows], axis=2), 2, axis=1)
    end, held, window = (part[:, None] for part in mx.split(meta, 3, axis=1))
    age = (end - 1 - mx.arange(C)) % C  # [B, 1, C]
    back = mx.arange(N)[::-1, None]
    is_seen = (age < held) & (age + N - back < window)  # [B, N, C]
    distance = back.swapaxes(0, 1) - back
    of_newest = mx.broadcast_to((distance >= 0) & (distance < window), (B, N, N))
    mask = mx.concatenate([is_seen, of_newest], axis=2)[:, None]
    out = attention_reference(queries, keys, values, mask, scale)
    return out.swapaxes(1, 2), rows


def ring_attention_q8_reference(
    queries: mx.array, rows: mx.array, meta: mx.array, scale: float
) -> mx.array:
    """`ring_attention_reference` over rows as `quantize_rows_reference` makes them."""
    keys, values = dequantize_rows(rows, mx.float32)
    return ring_attention_reference(queries, keys, values, meta, scale)
