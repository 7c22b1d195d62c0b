"""Causal convolutions that keep the input no window has consumed."""

# pyright: standard
# mlx.nn has no types.

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from voxmlx.kernels import concatenate, dense_product, gelu, positions, windows
from voxmlx.model.stacking import concat_positions, split

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
        return self.step_together([x], [state])[0]

    def step_together(
        self, xs: Sequence[mx.array], states: Sequence[ConvState]
    ) -> list[mx.array]:
        """Return for each stream what `step` returns, from one convolution.

        The streams are laid end to end, each from a multiple of the stride on;
        outputs whose windows lie in two of them belong to nobody.
        """
        laid: list[mx.array] = []
        kept: list[tuple[int, int]] = []
        start = 0
        for x, state in zip(xs, states, strict=True):
            x = concatenate(state.pending, x)
            B, n, C = x.shape
            T = max(0, (n - KERNEL_SIZE) // self.stride + 1)
            state.pending = positions(x, T * self.stride)
            kept.append((start // self.stride, T))
            if T == 0:
                continue
            laid.append(x)
            start += n
            if len(xs) > 1 and (short := -n % self.stride):
                laid.append(mx.zeros((B, short, C), x.dtype))
                start += short
        if not laid:
            out = mx.zeros((xs[0].shape[0], 0, self.weight.shape[0]), xs[0].dtype)
            return [out] * len(xs)
        out = self._convolved(concat_positions(laid))
        if len(xs) == 1:
            return [out]
        return [out[:, first : first + T] for first, T in kept]

    def _convolved(self, x: mx.array) -> mx.array:
        """[B, n, C_in] -> [B, (n - kernel) // stride + 1, C_out].

        Channels lie innermost, so a window is a run of the input as it is: a product
        with these runs is what MLX's convolution comes to.
        """
        laid = windows(x, KERNEL_SIZE, self.stride)
        return self._product(laid)

    def _product(self, laid: mx.array) -> mx.array:
        return dense_product(laid, self.weight)


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
        return self.step_together([mel_frames], [state])[0]

    def step_together(
        self, mel_frames: Sequence[mx.array], states: Sequence[ConvStemState]
    ) -> list[mx.array]:
        """Return for each stream what `step` returns."""
        xs = self.conv1.step_together(mel_frames, [s.conv1 for s in states])
        xs = _gelu(xs, self.conv1.bias)
        xs = self.conv2.step_together(xs, [s.conv2 for s in states])
        return _gelu(xs, self.conv2.bias)


def _gelu(xs: Sequence[mx.array], bias: mx.array) -> list[mx.array]:
    return split(gelu(concat_positions(xs), bias), [x.shape[1] for x in xs])
