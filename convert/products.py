"""Products of matrices besides the network's own, by NumPy where there is no GPU.

The reason stands in `voxmlx.kernels.numpy_bodies`.
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

from .affine import Floats

__all__ = [
    "dequantize",
    "gram",
    "modules_of",
    "replaced_weight",
    "shapes_of",
    "times",
]


def gram(inputs: Iterable[mx.array]) -> mx.array:
    """Return X^T X [n, n], float32, of inputs [..., n]."""
    total = mx.array(0.0)
    for x in inputs:
        flat = x.reshape(-1, x.shape[-1]).astype(mx.float32)
        if mx.metal.is_available():
            total = total + flat.T @ flat
        else:
            rows = np.asarray(flat)
            # What is too large is infinite, and for the caller to refuse.
            with np.errstate(over="ignore", invalid="ignore"):
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


def modules_of(network: nn.Module) -> dict[str, nn.Module]:
    """Return all modules by their path."""
    return dict(network.named_modules())


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each module's weight, by the module's path."""
    found = modules_of(network).items()
    return {path: m["weight"].shape for path, m in found if "weight" in m}


@contextmanager
def replaced_weight(
    module: nn.Module, change: Callable[[Floats], Floats]
) -> Generator[None]:
    """Let a dense matrix be what `change` makes of it, float32, for a while."""
    kept = module["weight"]
    rows = np.array(kept.astype(mx.float32))
    module.weight = mx.array(change(rows)).astype(kept.dtype)
    try:
        yield
    finally:
        module.weight = kept


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
