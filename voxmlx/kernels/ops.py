"""Chooses, once per process, the body each operation runs with."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.kernels.evaluation import as_numpy, evaluate_async
from voxmlx.kernels.metal import (
    MAX_STEP_QUERIES,
    MAX_WINDOW_SLOTS,
    add_rms_norm_metal,
    fits_lanes,
    quantize_rows_metal,
    ring_attention_q8_metal,
    window_attention_metal,
)
from voxmlx.kernels.numpy_bodies import (
    concatenate_numpy,
    dense_product_numpy,
    gelu_numpy,
    rms_norm_numpy,
    windows_numpy,
)
from voxmlx.kernels.pow_attention import is_pow_attention_faster, pow_attention
from voxmlx.kernels.reference import (
    add_rms_norm_reference,
    attention_reference,
    gelu_reference,
    rotated_pairs_reference,
    swiglu_reference,
)
from voxmlx.kernels.ring_reference import (
    quantize_rows_reference,
    ring_attention_q8_reference,
    window_attention_reference,
)
from voxmlx.kernels.switches import NUMPY, STOCK_ATTENTION, kernel_switches

__all__ = [
    "Fused",
    "Rotation",
    "add",
    "add_rms_norm",
    "attention",
    "begin",
    "concatenate",
    "dense_product",
    "embedded",
    "gelu",
    "has_metal",
    "has_ring_attention_q8",
    "has_window_attention",
    "positions",
    "quantize_rows",
    "reshape",
    "ring_attention_q8",
    "rms_norm",
    "rotate",
    "rotation",
    "runs_in_numpy",
    "swiglu",
    "window_attention",
    "windows",
]


@cache
def has_metal() -> bool:
    return mx.metal.is_available()


def runs_in_numpy(x: mx.array) -> bool:
    """Return whether NumPy computes with x, as it does where there is no GPU."""
    return x.dtype == mx.float32 and not has_metal() and kernel_switches().is_on(NUMPY)


def begin(*arrays: mx.array) -> None:
    """Let a GPU begin with these while the rest of a step is still being built."""
    if has_metal():
        evaluate_async(*arrays)


class Rotation(NamedTuple):
    """A step's angles as `rotate` uses them, and the shape of pairs on Metal."""

    angles: tuple[mx.array, ...]
    pairs: tuple[int, ...]


class Fused:
    """An element-wise `body` as one kernel where that is free.

    Compiling on the CPU backend needs a C++ compiler at run time, which a user's
    machine need not have; on Metal it is part of the system.
    """

    def __init__(
        self,
        body: Callable[..., mx.array],
        in_numpy: Callable[..., mx.array] | None = None,
    ) -> None:
        """`in_numpy` computes the same where there is no GPU."""
        self.body = body
        self.in_numpy = in_numpy
        self.name = body.__name__.removesuffix("_reference")
        self.compiled = mx.compile(body)

    def __call__(self, *arrays: mx.array) -> mx.array:
        if has_metal() and kernel_switches().is_on(self.name):
            return self.compiled(*arrays)
        if self.in_numpy is not None and runs_in_numpy(arrays[0]):
            return self.in_numpy(*arrays)
        return self.body(*arrays)


gelu = Fused(gelu_reference, gelu_numpy)
swiglu = Fused(swiglu_reference)
_rotated_pairs = Fused(rotated_pairs_reference)


def rotation(angles: NDArray[np.complex64], heads_per_group: int) -> Rotation:
    """Lay out a step's angles, for all of its layers, as `rotate` likes them.

    `angles` [B, T, R, 1, D / 2] are those of `rotate_reference`.
    """
    # A view of pairs as complex numbers has no gradient.
    if not has_metal() and not kernel_switches().has_gradients:
        B, T, R, _, half = angles.shape
        every_head = np.broadcast_to(angles, (B, T, R, heads_per_group, half))
        return Rotation((mx.array(every_head.reshape(B, T, -1)),), ())
    of_first, of_second = (
        mx.array(turned.view(np.float32).reshape(*angles.shape, 2))
        for turned in (angles, angles * np.complex64(1j))
    )
    shape = (*angles.shape[:3], heads_per_group, angles.shape[-1], 2)
    return Rotation((of_first, of_second), shape)


def rotate(x: mx.array, rotation: Rotation, bias: mx.array | None = None) -> mx.array:
    """`rotate_reference` of what `rotation` has laid out: same result."""
    if rotation.pairs:
        biases = () if bias is None else _pairs(bias, (1, 1, *rotation.pairs[2:]))
        pairs = _pairs(x, rotation.pairs)
        rotated = _rotated_pairs(*pairs, *rotation.angles, *biases)
        return mx.reshape(rotated, x.shape)
    # MLX fuses no complex numbers; here one product of them is fewest steps.
    exact = x.astype(mx.float32)
    if bias is not None:
        exact = exact + bias.astype(mx.float32)
    rotated = exact.view(mx.complex64) * rotation.angles[0]
    return rotated.view(mx.float32).astype(x.dtype)


def _pairs(x: mx.array, shape: tuple[int, ...]) -> tuple[mx.array, mx.array]:
    """The first and the second number [..., 1] of x in pairs [..., 2] of this shape.

    No view has a negative stride: MLX's compiled kernels count unsigned, and would read
    the first number of the first pair 2^32 places too far.
    """
    pairs = mx.reshape(x, shape)
    return pairs[..., :1], pairs[..., 1:]


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


def concatenate(first: mx.array, second: mx.array) -> mx.array:
    """[B, m, C] and [B, n, C] -> [B, m + n, C]."""
    if runs_in_numpy(first):
        return concatenate_numpy(first, second)
    return mx.concatenate([first, second], axis=1)


def positions(x: mx.array, start: int, stop: int | None = None) -> mx.array:
    """Return x[:, start:stop] of x [B, n, ...]; x itself, where that is all of it."""
    if start == 0 and (stop is None or stop >= x.shape[1]):
        return x
    if runs_in_numpy(x):
        return mx.array(as_numpy(x)[:, start:stop])
    return x[:, start:stop]


def reshape(x: mx.array, shape: Sequence[int]) -> mx.array:
    """Return x with another shape."""
    if runs_in_numpy(x):
        return mx.array(as_numpy(x).reshape(shape))
    return mx.reshape(x, shape)


def add(first: mx.array, second: mx.array) -> mx.array:
    """Return the sum of two arrays of one shape."""
    if runs_in_numpy(first) and second.dtype == mx.float32:
        return mx.array(as_numpy(first) + as_numpy(second))
    return first + second


def embedded(ids: mx.array, weight: mx.array) -> mx.array:
    """Return the rows [..., dim] of weight [vocab, dim] that ids [...] name."""
    if runs_in_numpy(weight):
        return mx.array(as_numpy(weight)[as_numpy(ids)])
    return weight[ids]


def windows(x: mx.array, size: int, stride: int) -> mx.array:
    """[B, n, C] -> its windows of `size` rows, each laid end to end: [B, T, size C]."""
    if runs_in_numpy(x):
        return windows_numpy(x, size, stride)
    B, n, C = x.shape
    T = (n - size) // stride + 1
    return mx.as_strided(x, (B, T, size * C), (n * C, stride * C, 1))


def dense_product(x: mx.array, weight: mx.array) -> mx.array:
    """x W^T [..., n] of x [..., columns]; a row of W may have several dimensions."""
    if runs_in_numpy(x) and weight.dtype == mx.float32:
        return dense_product_numpy(x, weight)
    if weight.ndim > 2:
        weight = mx.reshape(weight, (weight.shape[0], -1))
    return x @ weight.T


def rms_norm(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    """`mx.fast.rms_norm` of x [..., dim] with weight [dim]: same result."""
    if runs_in_numpy(x) and weight.ndim == 1 and weight.dtype == mx.float32:
        return rms_norm_numpy(x, weight, eps)
    return mx.fast.rms_norm(x, weight, eps)


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
