"""A linear layer without its bias, which is cheaper to add later."""

import mlx.core as mx
import mlx.nn as nn

__all__ = ["product"]


def product(linear: nn.Linear | nn.QuantizedLinear, x: mx.array) -> mx.array:
    """x W^T. A quantised product adds no bias; on its own that is a launch more."""
    if isinstance(linear, nn.QuantizedLinear):
        return mx.quantized_matmul(
            x,
            linear.weight,
            scales=linear.scales,
            biases=linear.get("biases"),
            transpose=True,
            group_size=linear.group_size,
            bits=linear.bits,
            mode=linear.mode,
        )
    return x @ linear.weight.T
