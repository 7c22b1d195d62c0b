"""Products by NumPy where MLX has no GPU: its wheel for Linux links a slow BLAS.

A core of a Xeon multiplies 2 billion numbers a second with that BLAS, and 75 with the
one of NumPy's wheels.
"""

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.kernels import ops
from voxmlx.kernels.evaluation import as_numpy
from voxmlx.kernels.switches import NUMPY

__all__ = ["Floats", "dense_product", "product_in_numpy", "runs_in_numpy"]

Floats = NDArray[np.float32]

# Of so few rows, a product for each is faster than one of them all: BLAS would first
# copy the whole matrix.
_FEW_ROWS = 4


def runs_in_numpy(x: mx.array) -> bool:
    """Return whether NumPy computes with x faster than MLX, on this machine."""
    if x.dtype != mx.float32 or ops.has_metal():
        return False
    return ops.kernel_switches().is_on(NUMPY)


def dense_product(x: mx.array, weight: mx.array) -> mx.array:
    """x W^T [..., n] of x [..., columns]; where NumPy multiplies, it waits for x."""
    if not runs_in_numpy(x) or weight.dtype != mx.float32:
        return x @ weight.T
    matrix = as_numpy(weight)
    rows = as_numpy(x).reshape(-1, matrix.shape[1])
    # What is not finite passes through: who reads ids sees it.
    with np.errstate(all="ignore"):
        product = product_in_numpy(rows, matrix)
    return mx.array(product.reshape(*x.shape[:-1], len(matrix)))


def product_in_numpy(x: Floats, weight: Floats) -> Floats:
    """x W^T [T, n] of x [T, columns]."""
    if not 1 < len(x) <= _FEW_ROWS:
        return x @ weight.T
    out = np.empty((len(x), len(weight)), np.float32)
    for row, result in zip(x, out, strict=True):
        np.dot(weight, row, out=result)
    return out
