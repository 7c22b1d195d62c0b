"""Chooses, once per process, the body each operation runs with."""

from collections.abc import Callable
from functools import cache
from typing import cast

import mlx.core as mx

from voxmlx.kernels.metal import (
    MAX_STEP_QUERIES,
    MAX_WINDOW_SLOTS,
    add_rms_norm_metal,
    fits_lanes,
    quantize_rows_metal,
    ring_attention_q8_metal,
    window_attention_metal,
)
from voxmlx.kernels.pow_attention import is_pow_attention_faster, pow_attention
from voxmlx.kernels.reference import (
    add_rms_norm_reference,
    attention_reference,
    gelu_reference,
    rotate_reference,
    rotated_pairs_reference,
    swiglu_reference,
)
from voxmlx.kernels.ring_reference import (
    quantize_rows_reference,
    ring_attention_q8_reference,
    window_attention_reference,
)
from voxmlx.kernels.switches import STOCK_ATTENTION, kernel_switches

__all__ = [
    "Fused",
    "add_rms_norm",
    "attention",
    "gelu",
    "has_metal",
    "has_ring_attention_q8",
    "has_window_attention",
    "quantize_rows",
    "ring_attention_q8",
    "rotate",
    "rotate_pairs",
    "swiglu",
    "window_attention",
]


@cache
def has_metal() -> bool:
    return mx.metal.is_available()


class Fused:
    """An element-wise `body` as one kernel where that is free.

    Compiling on the CPU backend needs a C++ compiler at run time, which a user's
    machine need not have; on Metal it is part of the system.
    """

    def __init__(self, body: Callable[..., mx.array]) -> None:
        self.body = body
        self._compiled = cast(Callable[..., mx.array], mx.compile(body))

    def __call__(self, *arrays: mx.array) -> mx.array:
        return self._compiled(*arrays) if has_metal() else self.body(*arrays)


gelu = Fused(gelu_reference)
swiglu = Fused(swiglu_reference)
_rotated_pairs = Fused(rotated_pairs_reference)


def rotate(x: mx.array, angles: mx.array, bias: mx.array | None = None) -> mx.array:
    """`rotate_reference`: same shapes, same result."""
    # MLX fuses no complex numbers; elsewhere one product of them is fewest steps.
    return (rotate_pairs if has_metal() else rotate_reference)(x, angles, bias)


def rotate_pairs(
    x: mx.array, angles: mx.array, bias: mx.array | None = None
) -> mx.array:
    """`rotate_reference` in real numbers: views, and one element-wise kernel."""
    cos_sin = angles.view(mx.float32).reshape(*angles.shape, 2)
    shape = (*angles.shape[1:3], -1, angles.shape[-1], 2)  # [T, R, H / R, D / 2, 2]
    biases = () if bias is None else _pairs(bias, (1, *shape[1:]))
    rotated = _rotated_pairs(
        *_pairs(x, (x.shape[0], *shape)),
        cos_sin[..., :1],
        cos_sin[..., 1:],
        _signs(),
        *biases,
    )
    return rotated.reshape(x.shape)


def _pairs(x: mx.array, shape: tuple[int, ...]) -> tuple[mx.array, mx.array]:
    """x in pairs [..., 2] of this shape, and that with every pair the other way round."""
    pairs = x.reshape(shape)
    return pairs, pairs[..., ::-1]


@cache
def _signs() -> mx.array:
    signs = mx.array([-1.0, 1.0])
    mx.eval(signs)
    return signs


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    mask: mx.array | None,
    scale: float,
) -> mx.array:
    """`attention_reference` by MLX's own fused kernel: same shapes, same result."""
    if not has_metal() and is_pow_attention_faster(queries, keys):
        return pow_attention(queries, keys, values, mask, scale)
    if not kernel_switches().is_on(STOCK_ATTENTION):
        return attention_reference(queries, keys, values, mask, scale)
    return mx.fast.scaled_dot_product_attention(
        queries, keys, values, scale=scale, mask=mask
    )


def add_rms_norm(
    x: mx.array,
    residual: mx.array,
    weight: mx.array,
    eps: float,
    bias: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """`add_rms_norm_reference` by the kernel of that name, where it is on."""
    if kernel_switches().is_on("add_rms_norm"):
        return add_rms_norm_metal(x, residual, weight, eps, bias)
    return add_rms_norm_reference(x, residual, weight, eps, bias)


def quantize_rows(kv: mx.array) -> mx.array:
    """`quantize_rows_reference` by the kernel of that name, where it is on."""
    if kernel_switches().is_on("quantize_rows"):
        return quantize_rows_metal(kv)
    return quantize_rows_reference(kv)


def has_ring_attention_q8(n_queries: int, head_dim: int) -> bool:
    """Return whether attention reads 8-bit rows in place, without a 16-bit copy."""
    return (
        kernel_switches().is_on("ring_attention_q8")
        and n_queries <= MAX_STEP_QUERIES
        and fits_lanes(head_dim)
    )


def ring_attention_q8(
    queries: mx.array, rows: mx.array, meta: mx.array, scale: float
) -> mx.array:
    """`ring_attention_q8_reference` by the kernel of that name, where it is on."""
    if has_ring_attention_q8(queries.shape[2], queries.shape[3]):
        return ring_attention_q8_metal(queries, rows, meta, scale)
    return ring_attention_q8_reference(queries, rows, meta, scale)


def has_window_attention(n_queries: int, head_dim: int, capacity: int) -> bool:
    """Return whether `window_attention` is faster than `rotate` and `attention`."""
    return (
        kernel_switches().is_on("window_attention")
        and 1 < n_queries <= MAX_STEP_QUERIES
        and capacity <= MAX_WINDOW_SLOTS
        and fits_lanes(head_dim)
    )


def window_attention(
    qkv: mx.array,
    angles: mx.array,
    bias: mx.array | None,
    ring: mx.array,
    meta: mx.array,
    scale: float,
) -> tuple[mx.array, mx.array]:
    """`window_attention_reference` by the kernel of that name, where it is on."""
    if has_window_attention(qkv.shape[1], ring.shape[3], ring.shape[2]):
        return window_attention_metal(qkv, angles, bias, ring, meta, scale)
    return window_attention_reference(qkv, angles, bias, ring, meta, scale)
