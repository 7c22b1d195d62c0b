"""Products with weights: without the bias, which is cheaper to add later."""

# pyright: standard
# mlx.nn has no types.

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from voxmlx.kernels import dense_product

__all__ = ["Product", "matmul", "product", "transpose_weights_for_cpu"]

# Weight, scales, biases, transpose, group size, bits and mode; a weight alone is dense.
Product = tuple[Any, ...]


def product(linear: nn.Module) -> Product | nn.Module:
    """Return what `matmul` needs of a module, in the order of `mx.quantized_matmul`.

    A module without a weight stands in for the product: convert watches the inputs of
    a product so.
    """
    # Items, not attributes: nn.Module looks the latter up in Python, ten times as slow.
    weight, scales = linear.get("weight"), linear.get("scales")
    if weight is None:
        return linear
    if scales is None:
        return (weight,)
    assert isinstance(linear, nn.QuantizedLinear | nn.QuantizedEmbedding)
    biases, group_size = linear.get("biases"), linear.group_size
    return weight, scales, biases, True, group_size, linear.bits, linear.mode


def matmul(linear: nn.Module | Product, x: mx.array) -> mx.array:
    """x W^T. A quantized product adds no bias; on its own that is a launch more."""
    if isinstance(linear, nn.Module):
        found = product(linear)
        if isinstance(found, nn.Module):
            return found(x)
        linear = found
    weight, *rest = linear
    return mx.quantized_matmul(x, weight, *rest) if rest else dense_product(x, weight)


def transpose_weights_for_cpu(network: nn.Module) -> None:
    """Store float32 matrices the other way round in memory; their shapes stay.

    BLAS adds columns up faster than it multiplies rows. In NumPy few rows gain a fifth.
    The BLAS that MLX's Linux wheels bring is two or three times faster: x W^T of
    4 x 1280 x 5120 takes 17 ms, not 27.
    """
    for module in network.modules():
        weight = module.get("weight")
        if isinstance(weight, mx.array) and weight.ndim > 1:
            if weight.dtype != mx.float32:
                continue
            rows = weight.reshape(weight.shape[0], -1)
            module.weight = mx.contiguous(rows.T).T.reshape(weight.shape)
            mx.eval(module.weight)
