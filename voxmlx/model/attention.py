"""Sliding-window self-attention over a ring of past keys."""

import mlx.core as mx
import mlx.nn as nn

from voxmlx.config import DecoderConfig, EncoderConfig
from voxmlx.kernels import attention, rotate
from voxmlx.model.cache import RingKVCache, RingStep
from voxmlx.model.product import product
from voxmlx.model.rope import Rotary

__all__ = ["Attention", "Step", "begin_step"]


class Step:
    """What every layer of one transformer step shares: rings, slots and angles."""

    __slots__ = ("cache", "ring", "turns")

    def __init__(self, cache: RingKVCache, ring: RingStep, turns: mx.array) -> None:
        self.cache, self.ring, self.turns = cache, ring, turns


def begin_step(cache: RingKVCache, rotary: Rotary, n: int) -> Step:
    """Advance `cache` by n positions and prepare what the layers need."""
    turns = rotary.turns(cache.position, n)
    return Step(cache, cache.advance(n), turns)


class Attention(nn.Module):
    """Grouped-query attention [B, T, dim] -> [B, T, dim]; q, k, v in one product.

    With `bias`, the queries, values and outputs have one and the keys do not; the
    keys' part of the packed bias is zero. The output's bias is left to the caller.
    """

    def __init__(self, config: EncoderConfig | DecoderConfig, *, bias: bool) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.n_kv_heads = config.n_kv_heads
        self.head_dim = config.head_dim
        n_rows = (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
        self.qkv_proj = nn.Linear(config.dim, n_rows, bias=bias)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, config.dim, bias=bias)

    def __call__(self, x: mx.array, layer: int, step: Step) -> mx.array:
        B, T, _ = x.shape
        n_rotated = self.n_heads + self.n_kv_heads
        bias: mx.array | None = self.qkv_proj.get("bias")
        if bias is not None:
            bias = bias.reshape(-1, self.head_dim)
        qkv = product(self.qkv_proj, x).reshape(B, T, -1, self.head_dim).swapaxes(1, 2)
        qk = rotate(
            qkv[:, :n_rotated], step.turns, None if bias is None else bias[:n_rotated]
        )  # [B, H, T, D]
        keys, values = step.cache.update(
            layer, qk[:, self.n_heads :], qkv[:, n_rotated:], step.ring
        )
        out = attention(
            qk[:, : self.n_heads], keys, values, step.ring.mask, self.head_dim**-0.5
        ).swapaxes(1, 2)
        if bias is not None:
            # Weights sum to one, so the values' bias may come after them: in the
            # launch that puts heads beside each other anyhow, and not in the ring.
            out = out.reshape(B, T, self.n_kv_heads, -1, self.head_dim)
            out = out + bias[n_rotated:, None]
        return product(self.o_proj, out.reshape(B, T, -1))
