"""Products by NumPy where MLX has no GPU: its wheel for Linux links a slow BLAS.

A core of a Xeon multiplies 2 billion numbers a second with that BLAS, and 75 with the
one of NumPy's wheels. `convert` multiplies much, and in float32 there. So it is done by
NumPy what MLX would do on a Mac.
"""

# pyright: standard
# mlx.nn has no types.

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from voxmlx.model.conv import CausalConv1d
from voxmlx.model.linear import matmul

from .affine import Floats

__all__ = [
    "dequantize",
    "gram",
    "modules_of",
    "product",
    "replaced_weight",
    "times",
    "use_numpy",
]


def product(module: nn.Module, x: mx.array) -> mx.array:
    """Return x W^T [..., n] of x [..., columns], without the module's bias."""
    return matmul(module, x) if "scales" in module else times(x, module["weight"])


def gram(inputs: Iterable[mx.array]) -> mx.array:
    """Return X^T X [n, n], float32, of inputs [..., n]."""
    total = mx.array(0.0)
    for x in inputs:
        flat = x.reshape(-1, x.shape[-1]).astype(mx.float32)
        if mx.metal.is_available():
            total = total + flat.T @ flat
        else:
            rows = np.asarray(flat)
            total = total + mx.array(rows.T @ rows)
        mx.eval(total)
    return total


def times(x: mx.array, weight: mx.array) -> mx.array:
    """Return x W^T [..., n] of x [..., columns]; it has a gradient."""
    if mx.metal.is_available() or {x.dtype, weight.dtype} != {mx.float32}:
        return x @ weight.T
    product: Any = _numpy_times
    return product(x, weight)


@mx.custom_function
def _numpy_times(x: mx.array, weight: mx.array) -> mx.array:
    return mx.array(_flat(x) @ np.asarray(weight).T).reshape(*x.shape[:-1], -1)


@_numpy_times.vjp
def _numpy_times_vjp(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    x, weight = primals
    slopes = _flat(cotangent)
    of_x = mx.array(slopes @ np.asarray(weight)).reshape(x.shape)
    return of_x, mx.array(slopes.T @ _flat(x))


def _flat(x: mx.array) -> Floats:
    return np.asarray(x).reshape(-1, x.shape[-1])


def use_numpy(network: nn.Module) -> None:
    """Have NumPy multiply with the float32 matrices of `network`, unless on a GPU.

    Quantized matrices stay MLX's. Such a network computes at once, never lazily.
    """
    if mx.metal.is_available():
        return
    changed: list[tuple[str, nn.Module]] = []
    for path, module in network.named_modules():
        weight = module.get("weight")
        if not isinstance(weight, mx.array) or weight.dtype != mx.float32:
            continue
        kind = _KINDS.get(type(module))
        if kind is not None:
            changed.append((path, kind(module)))
    tree: Any = tree_unflatten(changed)
    network.update_modules(tree)


def modules_of(network: nn.Module) -> dict[str, nn.Module]:
    """Return all modules by their path."""
    return dict(network.named_modules())


@contextmanager
def replaced_weight(
    module: nn.Module, change: Callable[[Floats], Floats]
) -> Generator[None]:
    """Let a dense matrix be what `change` makes of it, float32, for a while."""
    name = "_weight" if "_weight" in module else "weight"
    kept = module[name]
    rows = np.array(kept.astype(mx.float32))
    module[name] = mx.array(change(rows)).astype(kept.dtype)
    try:
        yield
    finally:
        module[name] = kept


def dequantize(network: nn.Module) -> None:
    """Put matrices of the same values, in float32, in place of quantized ones."""
    changed: list[tuple[str, nn.Module]] = []
    for path, module in network.named_modules():
        if not isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            continue
        weight = mx.dequantize(
            module.weight,
            module.scales,
            module.get("biases"),
            group_size=module.group_size,
            bits=module.bits,
            mode=module.mode,
        ).astype(mx.float32)
        rows, columns = weight.shape
        if isinstance(module, nn.QuantizedEmbedding):
            dense: nn.Module = nn.Embedding(rows, columns)
        else:
            dense = nn.Linear(columns, rows, bias="bias" in module)
            if "bias" in module:
                dense.bias = module.bias
        dense.weight = weight
        changed.append((path, dense))
    tree: Any = tree_unflatten(changed)
    network.update_modules(tree)


class _Linear(nn.Module):
    """A product alone: as in `voxmlx.model.linear`, who calls it adds the bias."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self._weight = linear["weight"]  # no parameter: `matmul` then calls the module
        if "bias" in linear:
            self.bias = linear.bias

    def __call__(self, x: mx.array) -> mx.array:
        return times(x, self["_weight"])


class _Embedding(nn.Embedding):
    def __init__(self, embedding: nn.Module) -> None:
        nn.Module.__init__(self)
        self.weight = embedding["weight"]

    def as_linear(self, x: mx.array) -> mx.array:
        return times(x, self["weight"])


class _Convolution(CausalConv1d):
    def __init__(self, convolution: nn.Module) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = convolution.weight, convolution.bias
        self.stride = convolution.stride

    def _product(self, laid: mx.array) -> mx.array:
        weight: mx.array = self["weight"]
        return times(laid, weight.reshape(weight.shape[0], -1))


_KINDS = {nn.Linear: _Linear, nn.Embedding: _Embedding, CausalConv1d: _Convolution}
