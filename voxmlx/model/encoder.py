"""Mel frames -> encoder frames, in whole audio tokens."""

# pyright: standard
# mlx.nn has no types.

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from voxmlx.config import EncoderConfig
from voxmlx.kernels import concatenate, positions
from voxmlx.model.attention import begin_step
from voxmlx.model.cache import RingKVCache
from voxmlx.model.conv import ConvStem, ConvStemState
from voxmlx.model.layer import Layer, pass_layers
from voxmlx.model.rope import RotaryEmbedding
from voxmlx.model.stacking import stack_streams, unstack_streams

__all__ = ["Encoder", "EncoderState"]


@dataclass(slots=True)
class EncoderState:
    """Conv input, encoder frames short of a whole audio token, and the rings."""

    stem: ConvStemState
    pending: mx.array  # [B, 0 .. 3, dim]
    cache: RingKVCache

    def copy(self) -> "EncoderState":
        return EncoderState(self.stem.copy(), self.pending, self.cache.copy())


class Encoder(nn.Module):
    """Causal transformer over [B, F, n_mels] -> [B, 4 n, dim], 20 ms a frame.

    The transformer runs on whole audio tokens (`group` encoder frames), so its
    results do not depend on the sizes of the pieces the sound arrived in.
    """

    def __init__(self, config: EncoderConfig, n_mels: int, group: int) -> None:
        super().__init__()
        self.config = config
        self.group = group
        self.rotary = RotaryEmbedding(
            config.head_dim, config.rope_theta, config.n_heads // config.n_kv_heads
        )
        self.stem = ConvStem(n_mels, config.dim)
        self.layers = [Layer(config, bias=True) for _ in range(config.n_layers)]
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)

    @property
    def dtype(self) -> mx.Dtype:
        return self.norm.weight.dtype

    def make_state(self, batch: int = 1, position: int = 0) -> EncoderState:
        """A fresh stream per row; `position` is where its rotary counter starts."""
        c = self.config
        return EncoderState(
            stem=self.stem.make_state(batch),
            pending=mx.zeros((batch, 0, c.dim), self.dtype),
            cache=RingKVCache.make(
                n_layers=c.n_layers,
                batch=batch,
                n_kv_heads=c.n_kv_heads,
                head_dim=c.head_dim,
                window=c.sliding_window,
                step=self.group,
                dtype=self.dtype,
                offset=position,
            ),
        )

    def step(self, mel_frames: mx.array, state: EncoderState) -> mx.array:
        """Return the encoder frames of all whole audio tokens, possibly none."""
        return self.step_together([mel_frames], [state])[0]

    def step_together(
        self, mel_frames: Sequence[mx.array], states: Sequence[EncoderState]
    ) -> list[mx.array]:
        """Return for each stream what `step` returns; weights are read once for all."""
        mel_frames = [m.astype(self.dtype) for m in mel_frames]
        frames = self.stem.step_together(mel_frames, [s.stem for s in states])
        whole: list[mx.array] = []
        for x, state in zip(frames, states, strict=True):
            if state.pending.shape[1]:
                x = concatenate(state.pending, x)
            n = x.shape[1] // self.group * self.group
            state.pending = positions(x, n)
            whole.append(positions(x, 0, n))
        ready = [i for i, x in enumerate(whole) if x.shape[1]]
        if ready:
            sizes = [whole[i].shape[1] for i in ready]
            step = begin_step(
                [states[i].cache for i in ready],
                self.rotary,
                sizes,
                self.config.n_kv_heads,
            )
            x = stack_streams([whole[i] for i in ready])
            residual = pass_layers(self["layers"], x, step)
            _, x = residual.normed(self.norm.weight, self.norm.eps)
            for i, frames_of_one in zip(ready, unstack_streams(x, sizes), strict=True):
                whole[i] = frames_of_one
        return whole
