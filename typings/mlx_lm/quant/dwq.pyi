"""The part of mlx_lm that is used here; its own files have no types."""

from collections.abc import Callable, Sequence

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers

def dwq_quantize(
    model: nn.Module,
    target_fn: Callable[[mx.array, int, str], tuple[mx.array, mx.array]],
    opt: optimizers.Optimizer,
    train_data: Sequence[tuple[list[int], int]],
    valid_data: Sequence[tuple[list[int], int]],
    batch_size: int,
    max_seq_length: int,
    seed: int,
    dtype: mx.Dtype = ...,
    gradient_checkpoint: bool = False,
    temperature: float = 2.0,
) -> None: ...
