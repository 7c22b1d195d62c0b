"""Audio embedding plus previous token -> logits of the next token."""

# pyright: standard
# mlx.nn has no types.

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from voxmlx.config import DecoderConfig
from voxmlx.kernels import embedded, gelu, reshape
from voxmlx.model.attention import begin_step
from voxmlx.model.cache import RingKVCache
from voxmlx.model.layer import Layer, Residual, pass_layers
from voxmlx.model.linear import matmul
from voxmlx.model.rope import RotaryEmbedding
from voxmlx.model.stacking import stack_streams

__all__ = ["Decoder", "DecoderState"]

TIME_THETA = 10_000.0


@dataclass(slots=True)
class DecoderState:
    """The rings, and the layers' norm weights with the delay folded in."""

    cache: RingKVCache
    mlp_norms: mx.array  # [n_layers, B, dim]

    def arrays(self) -> list[mx.array]:
        """Return all arrays that are computed on the device."""
        return [*self.cache.arrays(), self.mlp_norms]

    def copy(self, step: int | None = None) -> "DecoderState":
        return DecoderState(self.cache.copy(step), self.mlp_norms)


class DelayConditioning(nn.Module):
    """Time embedding [B, dim] -> g [B, dim], a layer's answer to the delay."""

    def __init__(self, dim: int, ada_dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, ada_dim, bias=False)
        self.up = nn.Linear(ada_dim, dim, bias=False)

    def __call__(self, time: mx.array) -> mx.array:
        return self.up(gelu(self.down(time)))


class DecoderLayer(Layer):
    """A layer whose second norm is scaled by 1 + g(delay)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config, bias=False)
        self.ada = DelayConditioning(config.dim, config.ada_dim)

    def conditioned_norm(self, time: mx.array) -> mx.array:
        """weight * (1 + g) [B, dim]: computed once per stream, not per step."""
        weight = self.mlp_norm.weight
        scale = 1 + self.ada(time.astype(weight.dtype)).astype(mx.float32)
        return (weight.astype(mx.float32) * scale).astype(weight.dtype)


class Decoder(nn.Module):
    """Causal transformer [B, T, dim] -> logits [B, T, vocab]; the embedding is tied."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        n_groups = config.n_heads // config.n_kv_heads
        self.rotary = RotaryEmbedding(config.head_dim, config.rope_theta, n_groups)
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        self.layers = [DecoderLayer(config) for _ in range(config.n_layers)]
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)

    @property
    def dtype(self) -> mx.Dtype:
        return self.norm.weight.dtype

    def make_state(
        self,
        delay_tokens: Sequence[int],
        position: int = 0,
        *,
        kv_bits: int = 16,
        window: int | None = None,
    ) -> DecoderState:
        """A fresh stream per entry of `delay_tokens`.

        `position` is where the rotary counter starts. `kv_bits`, one of KV_BITS, is
        how the rings keep their numbers. They hold `window` positions, where that is
        less than the model's own.
        """
        c = self.config
        time = time_embedding(delay_tokens, c.dim)
        mlp_norms = mx.stack([layer.conditioned_norm(time) for layer in self.layers])
        mx.eval(mlp_norms)
        cache = RingKVCache.make(
            n_layers=c.n_layers,
            batch=len(delay_tokens),
            n_kv_heads=c.n_kv_heads,
            head_dim=c.head_dim,
            window=min(window or c.sliding_window, c.sliding_window),
            step=1,
            dtype=self.dtype,
            offset=position,
            bits=kv_bits,
        )
        return DecoderState(cache, mlp_norms)

    def embed(self, token_ids: mx.array) -> mx.array:
        """[B, T] -> [B, T, dim]."""
        if "scales" not in self.embedding:
            return embedded(token_ids, self.embedding["weight"]).astype(self.dtype)
        # Modes without biases give bfloat16, whatever the network computes in.
        return self.embedding(token_ids).astype(self.dtype)

    def step(
        self, embeddings: mx.array, state: DecoderState, n_logits: int | None = None
    ) -> mx.array:
        """Logits [B, n, vocab] of the last `n_logits` positions (None: of all)."""
        B, T, _ = embeddings.shape
        n = T if n_logits is None else n_logits
        residual = None
        if T:
            step = begin_step([state.cache], self.rotary, [T], self.config.n_kv_heads)
            layers = self["layers"]
            residual = pass_layers(layers, embeddings, step, state.mlp_norms)
        if residual is None or n == 0:
            return mx.zeros((B, 0, self.config.vocab_size), self.dtype)
        return self._logits(residual.last(n))

    def step_together(
        self,
        embeddings: Sequence[mx.array],
        states: Sequence[DecoderState],
        n_logits: Sequence[int],
    ) -> mx.array | None:
        """Step streams, each by its own embeddings [1, n, dim], n of at least 1.

        Returns logits [R, vocab] of each stream's last `n_logits` positions, in
        order; None if that is none at all.
        """
        sizes = [e.shape[1] for e in embeddings]
        if len(states) == 1:
            logits = self.step(embeddings[0], states[0], n_logits=n_logits[0])
            return reshape(logits, logits.shape[1:]) if n_logits[0] else None
        step = begin_step(
            [s.cache for s in states], self.rotary, sizes, self.config.n_kv_heads
        )
        norms = mx.concatenate([s.mlp_norms for s in states], axis=1)
        if max(sizes) > 1:
            norms = norms[:, mx.array(np.repeat(np.arange(len(sizes)), sizes))]
        residual = pass_layers(self["layers"], stack_streams(embeddings), step, norms)
        ends = np.cumsum(sizes)
        last = [np.arange(end - n, end) for end, n in zip(ends, n_logits, strict=True)]
        rows = np.concatenate(last)
        if len(rows) == 0:
            return None
        return self._logits(residual.rows(mx.array(rows)))[:, 0]

    def _logits(self, residual: Residual) -> mx.array:
        _, h = residual.normed(self.norm.weight, self.norm.eps)
        return matmul(self.embedding, h)


def time_embedding(delay_tokens: Sequence[int], dim: int) -> mx.array:
    """Sinusoids of the delay, cosines first: [B, dim] float32."""
    rates = np.exp(-math.log(TIME_THETA) * np.arange(dim // 2) / (dim // 2))
    angle = np.array(delay_tokens, np.float64)[:, None] * rates
    table = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    return mx.array(table.astype(np.float32))
