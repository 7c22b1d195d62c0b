"""One pre-norm transformer layer, the same in the encoder and the decoder."""

# pyright: standard
# mlx.nn has no types.

from collections.abc import Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from voxmlx.config import DecoderConfig, EncoderConfig
from voxmlx.kernels import (
    CompiledGraph,
    Rotation,
    add_rms_norm,
    begin,
    rms_norm,
    rotate,
    swiglu,
    window_attention,
)
from voxmlx.model.attention import Attention, Step
from voxmlx.model.linear import Product, matmul, product
from voxmlx.model.numpy_layers import numpy_layers

__all__ = ["Layer", "Residual", "SwiGLU", "pass_layers"]

# After so many layers a GPU has work while Python builds the next ones.
_LAYERS_AT_ONCE = 8


class Residual(NamedTuple):
    """x [B, T, dim] and what is still to be added to it, together with the next norm.

    `bias` [dim] is the branch's.
    """

    x: mx.array
    branch: mx.array | None = None
    bias: mx.array | None = None

    def normed(self, weight: mx.array, eps: float) -> tuple[mx.array, mx.array]:
        """(x with all added, its RMS norm); `weight` is [dim], or [1 or B, dim]."""
        if self.branch is None:
            return self.x, rms_norm(self.x, weight, eps)
        return add_rms_norm(self.branch, self.x, weight, eps, self.bias)

    def last(self, n: int) -> "Residual":
        """Return the residual of the last n positions."""
        if n == self.x.shape[1]:
            return self
        branch = None if self.branch is None else self.branch[:, -n:]
        return Residual(self.x[:, -n:], branch, self.bias)

    def rows(self, index: mx.array) -> "Residual":
        """Return the residual of these rows of the batch."""
        branch = None if self.branch is None else self.branch[index]
        return Residual(self.x[index], branch, self.bias)


class SwiGLU(nn.Module):
    """Weights of down(silu(gate x) * up x); gate and up in one product."""

    def __init__(self, dim: int, hidden_dim: int, *, bias: bool) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(dim, 2 * hidden_dim, bias=False)
        self.down_proj = nn.Linear(hidden_dim, dim, bias=bias)


def _entered(
    x: mx.array,
    branch: mx.array | None,
    bias: mx.array | None,
    norm: mx.array,
    eps: float,
    qkv_proj: nn.Module | Product,
    qkv_bias: mx.array | None,
    angles: tuple[mx.array, ...] | None,
    pairs: tuple[int, ...],
) -> tuple[mx.array, mx.array]:
    """From a residual to attention: (x with all added, q, k and v, rotated if asked)."""
    x, h = Residual(x, branch, bias).normed(norm, eps)
    qkv = matmul(qkv_proj, h)
    if angles is not None:
        qkv = rotate(qkv, Rotation(tuple(angles), tuple(pairs)), qkv_bias)
    return x, qkv


def _left(
    x: mx.array,
    attended: mx.array,
    o_proj: nn.Module | Product,
    o_bias: mx.array | None,
    norm: mx.array,
    eps: float,
    gate_up_proj: nn.Module | Product,
    down_proj: nn.Module | Product,
) -> tuple[mx.array, mx.array]:
    """From attention to the next layer: (x with attention added, the MLP's branch)."""
    B, T, _ = x.shape
    branch = matmul(o_proj, attended.reshape(B, T, -1))
    x, h = add_rms_norm(branch, x, norm, eps, o_bias)
    return x, matmul(down_proj, swiglu(matmul(gate_up_proj, h)))


def _passed(
    entering: tuple[Any, ...],
    window: tuple[Any, ...],
    leaving: tuple[Any, ...],
) -> tuple[mx.array, mx.array, mx.array]:
    """Through a whole layer whose attention only reads its ring, and rows for the ring."""
    x, qkv = _entered(*entering)
    attended, rows = window_attention(qkv, *window)
    return *_left(x, attended, *leaving), rows


# A ring is written between two graphs: the slot, a new one each step, is in neither.
_enter, _leave = CompiledGraph(_entered), CompiledGraph(_left)
_pass = CompiledGraph(_passed)


class Layer(nn.Module):
    """Attention and SwiGLU, each behind an RMSNorm and around a residual."""

    def __init__(self, config: EncoderConfig | DecoderConfig, *, bias: bool) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config, bias=bias)
        self.mlp_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.mlp = SwiGLU(config.dim, config.hidden_dim, bias=bias)

    def __call__(
        self,
        residual: Residual,
        layer: int,
        step: Step,
        mlp_norm: mx.array | None = None,
    ) -> Residual:
        """`mlp_norm` [B, dim] replaces the second norm's weight, a row per stream:
        that is where the decoder's delay acts.
        """
        # Items, not attributes: see `product`.
        attention = self["attention"]
        entering = self._entering(residual, step)
        leaving = self._leaving(mlp_norm)
        if (window := step.window) is not None and _pass.is_on(residual.x):
            cache, bias = window.cache, attention["qkv_proj"].get("bias")
            meta, angles = window.ring.meta_of_older, window.angles
            reads = angles, bias, cache.rings[layer], meta, attention.scale
            x, branch, rows = _pass.run(entering, reads, leaving)
            cache.waiting.append(rows)
        else:
            x, qkv = _enter(*entering)
            attended = attention.attend(qkv, layer, step)
            x, branch = _leave(x, attended, *leaving)
        return Residual(x, branch, self["mlp"]["down_proj"].get("bias"))

    def _entering(self, residual: Residual, step: Step) -> tuple[Any, ...]:
        """Return the arguments of `_entered`."""
        norm, qkv_proj = self["attention_norm"], self["attention"]["qkv_proj"]
        angles, pairs = (None, ()) if step.rotation is None else step.rotation
        return (
            *residual,
            norm["weight"],
            norm.eps,
            product(qkv_proj),
            qkv_proj.get("bias"),
            angles,
            pairs,
        )

    def _leaving(self, mlp_norm: mx.array | None) -> tuple[Any, ...]:
        """Return the arguments of `_left` after what has been computed."""
        o_proj, mlp, norm = self["attention"]["o_proj"], self["mlp"], self["mlp_norm"]
        return (
            product(o_proj),
            o_proj.get("bias"),
            norm["weight"] if mlp_norm is None else mlp_norm,
            norm.eps,
            product(mlp["gate_up_proj"]),
            product(mlp["down_proj"]),
        )


def pass_layers(
    layers: Sequence[Layer],
    x: mx.array,
    step: Step,
    mlp_norms: mx.array | None = None,
) -> Residual:
    """x [B, T, dim] through a stack; `mlp_norms` [n_layers, B, dim] as `Layer` has them."""
    if (computed := numpy_layers(layers, x, step, mlp_norms)) is not None:
        return Residual(computed)
    norms: list[mx.array | None] = [None] * len(layers)
    if mlp_norms is not None:
        # Views of [B, dim]: an index would gather.
        norms = [*mx.split(mlp_norms.reshape(-1, x.shape[2]), len(layers))]
    residual = Residual(x)
    for i, (layer, norm) in enumerate(zip(layers, norms, strict=True)):
        residual = layer(residual, i, step, norm)
        # The GPU begins while Python builds the next layers.
        is_last_of_some = i % _LAYERS_AT_ONCE == _LAYERS_AT_ONCE - 1
        if is_last_of_some and residual.branch is not None:
            begin(residual.x, residual.branch)
    return residual
