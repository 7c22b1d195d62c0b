"""The operations as Metal kernels: for each, its names, template, grid and outputs."""

from functools import cache

import mlx.core as mx

from voxmlx.kernels.launch import Launch, MetalKernel

__all__ = ["add_rms_norm_metal"]

_ADD_RMS_NORM = MetalKernel(
    "add_rms_norm",
    inputs=("x", "residual", "bias", "weight", "eps"),
    outputs=("h", "y"),
)
_THREADS_PER_ROW = 256


def add_rms_norm_metal(
    x: mx.array,
    residual: mx.array,
    weight: mx.array,
    eps: float,
    bias: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """`add_rms_norm_reference` in one launch."""
    B, N, D = x.shape
    if weight.ndim == 1:
        weight = weight[None]
    launch = Launch(
        template=(("T", x.dtype), ("D", D)),
        grid=(B * N * _THREADS_PER_ROW, 1, 1),
        threadgroup=(_THREADS_PER_ROW, 1, 1),
        output_shapes=(x.shape, x.shape),
        output_dtypes=(x.dtype, x.dtype),
    )
    if bias is None:
        bias = _zeros(D, x.dtype)
    h, y = _ADD_RMS_NORM((x, residual, bias, weight, _constant(eps)), launch)
    return h, y


@cache
def _constant(value: float) -> mx.array:
    """A number as the buffer a kernel reads it from; templates take integers only."""
    array = mx.array([value])
    mx.eval(array)
    return array


@cache
def _zeros(n: int, dtype: mx.Dtype) -> mx.array:
    array = mx.zeros(n, dtype)
    mx.eval(array)
    return array
