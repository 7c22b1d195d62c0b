"""Products with weights: without the bias, which is cheaper to add later."""

import mlx.core as mx
import mlx.nn as nn

__all__ = ["matmul", "transpose_weights_for_cpu"]


def matmul(linear: nn.Module, x: mx.array) -> mx.array:
    """x W^T. A quantized product adds no bias; on its own that is a launch more.

    A module without a weight stands in for the product, and is called: convert
    watches the inputs of a product so.
    """
    # Items, not attributes: nn.Module looks the latter up in Python, ten times as slow.
    weight, scales = linear.get("weight"), linear.get("scales")
    if weight is None:
        return linear(x)
    if scales is None:
        return x @ weight.T
    assert isinstance(linear, nn.QuantizedLinear)
    return mx.quantized_matmul(
        x,
        weight,
        scales,
        linear.get("biases"),
        True,
        linear.group_size,
        linear.bits,
        linear.mode,
    )


def transpose_weights_for_cpu(network: nn.Module) -> None:
    """Store float32 matrices the other way round in memory; their shapes stay.

    The BLAS that MLX's Linux wheels bring adds columns up fast, two or three times
    faster than it multiplies rows: x W^T of 4 x 1280 x 5120 takes 17 ms, not 27.
    """
    for module in network.modules():
        weight = module.get("weight")
        if isinstance(weight, mx.array) and weight.ndim > 1:
            if weight.dtype != mx.float32:
                continue
            rows = weight.reshape(weight.shape[0], -1)
            module.weight = mx.contiguous(rows.T).T.reshape(weight.shape)
            mx.eval(module.weight)
