"""One pre-norm transformer layer, the same in the encoder and the decoder."""

from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from voxmlx.config import DecoderConfig, EncoderConfig
from voxmlx.kernels import add_rms_norm, begin, swiglu
from voxmlx.model.attention import Attention, Step
from voxmlx.model.linear import matmul

__all__ = ["Layer", "Residual", "SwiGLU", "begin_early"]

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
            return self.x, mx.fast.rms_norm(self.x, weight, eps)
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
    """down(silu(gate x) * up x) over [B, T, dim]; gate and up in one product.

    The bias of `down_proj` is left to the caller.
    """

    def __init__(self, dim: int, hidden_dim: int, *, bias: bool) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(dim, 2 * hidden_dim, bias=False)
        self.down_proj = nn.Linear(hidden_dim, dim, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        return matmul(self["down_proj"], swiglu(matmul(self["gate_up_proj"], x)))


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
        # Items, not attributes: see `matmul`.
        attention, mlp, norm = self["attention"], self["mlp"], self["mlp_norm"]
        first_norm = self["attention_norm"]
        x, h = residual.normed(first_norm["weight"], first_norm.eps)
        branch = attention(h, layer, step)
        weight: mx.array = norm["weight"] if mlp_norm is None else mlp_norm
        x, h = add_rms_norm(
            branch, x, weight, norm.eps, attention["o_proj"].get("bias")
        )
        return Residual(x, mlp(h), mlp["down_proj"].get("bias"))


def begin_early(layer: int, residual: Residual) -> None:
    """Let the GPU begin after some layers of a stack, of which `layer` was one."""
    if layer % _LAYERS_AT_ONCE == _LAYERS_AT_ONCE - 1 and residual.branch is not None:
        begin(residual.x, residual.branch)
