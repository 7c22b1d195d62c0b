"""Bodies in NumPy, for a CPU: MLX's operations and the BLAS of its wheel are slow there.

A small operation of MLX's CPU backend takes 3 to 25 us, one of NumPy's 1 to 3. A core of
a Xeon multiplies 2 billion numbers a second with the BLAS of MLX's wheel for Linux, and
75 with the one of NumPy's wheels. All bodies here wait for their arrays.
"""

import math

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.kernels.evaluation import as_numpy

__all__ = [
    "Floats",
    "concatenate_numpy",
    "dense_product_numpy",
    "gelu_numpy",
    "product_of_rows",
    "rms_norm_numpy",
    "rms_norm_of_rows",
    "windows_numpy",
]

Floats = NDArray[np.float32]

# Of so few rows, a product for each is faster than one of them all: BLAS would first
# copy the whole matrix.
_FEW_ROWS = 8

_P = np.float32(0.3275911 / math.sqrt(2))
# Halves of a5 to a1: of F there is half the error function.
_POLYNOMIAL = [
    np.float32(a / 2)
    for a in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
]


def product_of_rows(x: Floats, weight: Floats) -> Floats:
    """x W^T [T, n] of x [T, columns]."""
    if len(x) > _FEW_ROWS:
        return x @ weight.T
    return (x[:, None] @ weight.T)[:, 0]


def rms_norm_of_rows(x: Floats, weight: Floats, eps: np.float32) -> Floats:
    """x [T, dim] over its root mean square, times weight [dim] or [1 or T, dim]."""
    rms = np.vecdot(x, x)
    rms *= np.float32(1 / x.shape[1])
    rms += eps
    np.sqrt(rms, out=rms)
    out = x / rms[:, None]
    out *= weight
    return out


# What is not finite passes through: who reads ids sees it.
def concatenate_numpy(first: mx.array, second: mx.array) -> mx.array:
    """[B, m, C] and [B, n, C] -> [B, m + n, C]."""
    return mx.array(np.concatenate([as_numpy(first), as_numpy(second)], axis=1))


def windows_numpy(x: mx.array, size: int, stride: int) -> mx.array:
    """[B, n, C] -> its windows of `size` rows, each laid end to end: [B, T, size C]."""
    B, n, C = x.shape
    rows = np.arange(0, n - size + 1, stride)[:, None] + np.arange(size)
    laid: Floats = as_numpy(x)[:, rows]
    return mx.array(laid.reshape(B, -1, size * C))


@np.errstate(all="ignore")
def dense_product_numpy(x: mx.array, weight: mx.array) -> mx.array:
    """x W^T [..., n] of x [..., columns]; a row of W may have several dimensions."""
    matrix = as_numpy(weight).reshape(weight.shape[0], -1)
    rows = product_of_rows(as_numpy(x).reshape(-1, matrix.shape[1]), matrix)
    return mx.array(rows.reshape(*x.shape[:-1], len(matrix)))


@np.errstate(all="ignore")
def gelu_numpy(x: mx.array, *bias: mx.array) -> mx.array:
    """`gelu_reference`, with an error function that is right to 1.5e-7.

    x F(x) is max(x, 0) - |x| F(-|x|), and F(-a) is polynomial(t) e^(-a^2 / 2) of
    t = 1 / (1 + p a): Abramowitz and Stegun, 7.1.26, with a / sqrt(2) for x.
    """
    exact = as_numpy(x)
    if bias:
        exact = exact + as_numpy(bias[0])
    size = np.abs(exact)
    t = size * _P
    t += np.float32(1)
    np.reciprocal(t, out=t)
    tail = t * _POLYNOMIAL[0]
    for coefficient in _POLYNOMIAL[1:]:
        tail += coefficient
        tail *= t
    density = exact * exact
    density *= np.float32(-0.5)
    np.exp(density, out=density)
    tail *= density
    tail *= size
    return mx.array(np.maximum(exact, np.float32(0)) - tail)


@np.errstate(all="ignore")
def rms_norm_numpy(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    """`mx.fast.rms_norm` of x [..., dim] with weight [dim]."""
    rows = as_numpy(x).reshape(-1, x.shape[-1])
    normed = rms_norm_of_rows(rows, as_numpy(weight), np.float32(eps))
    return mx.array(normed.reshape(x.shape))
