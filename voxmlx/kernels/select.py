"""Chooses, once per process, the body each operation runs with."""

from collections.abc import Callable
from typing import TypeVar, cast

import mlx.core as mx

from voxmlx.kernels.gate import gate
from voxmlx.kernels.metal import add_rms_norm_metal
from voxmlx.kernels.reference import (
    add_rms_norm_reference,
    gelu_reference,
    rotate_reference,
    swiglu_reference,
)

__all__ = ["add_rms_norm", "attention", "gelu", "rotate", "swiglu"]

_F = TypeVar("_F", bound=Callable[..., mx.array])


def _fused(body: _F) -> _F:
    """`body` as one kernel where that is free.

    Compiling on the CPU backend needs a C++ compiler at run time, which a user's
    machine need not have; on Metal it is part of the system.
    """
    return cast(_F, mx.compile(body)) if mx.metal.is_available() else body


rotate = _fused(rotate_reference)
gelu = _fused(gelu_reference)
swiglu = _fused(swiglu_reference)


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    mask: mx.array | None,
    scale: float,
) -> mx.array:
    """`attention_reference` by MLX's own fused kernel: same shapes, same result."""
    return mx.fast.scaled_dot_product_attention(
        queries, keys, values, scale=scale, mask=mask
    )


def add_rms_norm(
    x: mx.array, residual: mx.array, weight: mx.array, eps: float
) -> tuple[mx.array, mx.array]:
    """`add_rms_norm_reference` by the kernel of that name, where it is on."""
    if gate().is_on("add_rms_norm"):
        return add_rms_norm_metal(x, residual, weight, eps)
    return add_rms_norm_reference(x, residual, weight, eps)
