"""Causal convolutions that keep the input no window has consumed."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from voxmlx.kernels import gelu

__all__ = ["CausalConv1d", "ConvState", "ConvStem", "ConvStemState"]

KERNEL_SIZE = 3


@dataclass(slots=True)
class ConvState:
    """Input [B, n, C_in] that the next output still needs."""

    pending: mx.array

    def copy(self) -> "ConvState":
        return ConvState(self.pending)


class CausalConv1d(nn.Module):
    """Left-padded convolution over [B, T, C_in] -> [B, T // stride, C_out].

    The bias is left to the caller, who adds it in the same launch as what follows. The
    left padding is kernel - stride zeros, so output t ends on input
    t * stride + stride - 1 and nothing later.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.weight = mx.zeros((out_channels, KERNEL_SIZE, in_channels))
        self.bias = mx.zeros((out_channels,))
        self.stride = stride

    def make_state(self, batch: int = 1) -> ConvState:
        pad = KERNEL_SIZE - self.stride
        return ConvState(
            mx.zeros((batch, pad, self.weight.shape[2]), self.weight.dtype)
        )

    def step(self, x: mx.array, state: ConvState) -> mx.array:
        x = mx.concatenate([state.pending, x], axis=1)
        T = max(0, (x.shape[1] - KERNEL_SIZE) // self.stride + 1)
        state.pending = x[:, T * self.stride :]
        if T == 0:
            return mx.zeros((x.shape[0], 0, self.weight.shape[0]), x.dtype)
        return mx.conv1d(x, self.weight, stride=self.stride)


@dataclass(slots=True)
class ConvStemState:
    """The states of both convolutions."""

    conv1: ConvState
    conv2: ConvState

    def copy(self) -> "ConvStemState":
        return ConvStemState(self.conv1.copy(), self.conv2.copy())


class ConvStem(nn.Module):
    """Mel frames [B, F, n_mels] -> encoder frames [B, F // 2, dim]."""

    def __init__(self, n_mels: int, dim: int) -> None:
        super().__init__()
        self.conv1 = CausalConv1d(n_mels, dim, stride=1)
        self.conv2 = CausalConv1d(dim, dim, stride=2)

    def make_state(self, batch: int = 1) -> ConvStemState:
        return ConvStemState(self.conv1.make_state(batch), self.conv2.make_state(batch))

    def step(self, mel_frames: mx.array, state: ConvStemState) -> mx.array:
        x = gelu(self.conv1.step(mel_frames, state.conv1), self.conv1.bias)
        return gelu(self.conv2.step(x, state.conv2), self.conv2.bias)
