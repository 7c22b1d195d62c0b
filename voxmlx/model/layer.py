"""One pre-norm transformer layer, the same in the encoder and the decoder."""

import mlx.core as mx
import mlx.nn as nn

from voxmlx.config import DecoderConfig, EncoderConfig
from voxmlx.kernels import swiglu
from voxmlx.model.attention import Attention, Step

__all__ = ["Layer", "SwiGLU"]


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x) over [B, T, dim]; gate and up in one product."""

    def __init__(self, dim: int, hidden_dim: int, *, bias: bool) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(dim, 2 * hidden_dim, bias=False)
        self.down_proj = nn.Linear(hidden_dim, dim, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(swiglu(self.gate_up_proj(x)))


class Layer(nn.Module):
    """Attention and SwiGLU, each behind an RMSNorm and around a residual."""

    def __init__(self, config: EncoderConfig | DecoderConfig, *, bias: bool) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config, bias=bias)
        self.mlp_norm = nn.RMSNorm(config.dim, config.norm_eps)
        self.mlp = SwiGLU(config.dim, config.hidden_dim, bias=bias)

    def __call__(
        self, x: mx.array, layer: int, step: Step, mlp_norm: mx.array | None = None
    ) -> mx.array:
        """[B, T, dim] -> [B, T, dim].

        `mlp_norm` [B, dim] replaces the second norm's weight, a row per stream:
        that is where the decoder's delay acts.
        """
        x = x + self.attention(self.attention_norm(x), layer, step)
        if mlp_norm is None:
            h = self.mlp_norm(x)
        elif mlp_norm.shape[0] == 1:
            h = mx.fast.rms_norm(x, mlp_norm[0], self.mlp_norm.eps)
        else:
            h = mx.fast.rms_norm(x, None, self.mlp_norm.eps) * mlp_norm[:, None]
        return x + self.mlp(h)
