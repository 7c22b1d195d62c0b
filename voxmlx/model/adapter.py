"""Encoder frames -> audio embeddings, one per audio token."""

# pyright: standard
# mlx.nn has no types.

import mlx.core as mx
import mlx.nn as nn

from voxmlx.kernels import gelu, reshape
from voxmlx.model.linear import matmul

__all__ = ["Adapter"]


class Adapter(nn.Module):
    """Concatenates `group` encoder frames: [B, group n, enc_dim] -> [B, n, dim]."""

    def __init__(self, enc_dim: int, dim: int, group: int) -> None:
        super().__init__()
        self.group = group
        self.linear1 = nn.Linear(enc_dim * group, dim, bias=False)
        self.linear2 = nn.Linear(dim, dim, bias=False)

    def __call__(self, encoder_frames: mx.array) -> mx.array:
        B, T, dim = encoder_frames.shape
        x = reshape(encoder_frames, (B, T // self.group, dim * self.group))
        return matmul(self.linear2, gelu(matmul(self.linear1, x)))
