"""Runs sound through the source a layer at a time, and sums up what each product sees.

A model of 9 GB is loaded whole once, for the ids that it makes of the sound. Then each
layer is read, applied to all of the sound, and forgotten. So what is held is the sound
between two layers, one layer, and the sums of its inputs: 1.5 GB in float32.
"""

# pyright: standard
# mlx.nn has no types.

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from voxmlx import demo, load
from voxmlx.checkpoint import best_dtype, empty_network, read_parameters
from voxmlx.config import (
    BOS_ID,
    SAMPLE_RATE,
    STREAMING_PAD_ID,
    DecoderConfig,
    EncoderConfig,
    delay_tokens,
)
from voxmlx.decoding.loop import greedy_ids
from voxmlx.errors import AudioError
from voxmlx.kernels import gelu
from voxmlx.layouts import ModelFiles
from voxmlx.layouts.recipes import DtypeName
from voxmlx.model import VoxtralRealtime
from voxmlx.model.attention import begin_step
from voxmlx.model.cache import RingKVCache
from voxmlx.model.decoder import time_embedding
from voxmlx.model.layer import Layer, Residual
from voxmlx.model.linear import matmul
from voxmlx.model.rope import RotaryEmbedding
from voxmlx.text.tokenizer import Tokenizer

from .quality import DELAY_MS, Sound, read_sounds

__all__ = ["MAX_SECONDS", "Calibration", "read_calibration"]

# Beyond it little is gained, and the sound between two layers would fill memory.
MAX_SECONDS = 1200

# Longer sounds are cut: each piece is heard as a stream of its own, so that the
# beginnings of streams count as well (KL of q4 on the demo: 0.0043 whole, 0.0030 cut).
_PIECE_SECONDS = 4

# Positions per step: bounds the scores that attention holds.
_POSITIONS = 128

_NO_SOUND = {".txt", ".json", ".md"}


def read_calibration(paths: Sequence[Path]) -> list[Sound]:
    """Read sounds, and every sound of folders, up to MAX_SECONDS in all.

    The path "demo" stands for the demo model's calibration sound.
    Raises AudioError.
    """
    found: list[Path] = []
    for path in paths:
        folder = demo.CALIBRATION if str(path) == demo.NAME else path
        if not folder.is_dir():
            found.append(folder)
            continue
        inside = [p for p in sorted(folder.iterdir()) if _is_sound(p)]
        if not inside:
            raise AudioError(f"{folder} holds no sound; name a folder that does")
        found += inside
    sounds: list[Sound] = []
    left = MAX_SECONDS * SAMPLE_RATE
    for sound in read_sounds(found, with_transcripts=False):
        samples = sound.samples[:left]
        left -= len(samples)
        step = _PIECE_SECONDS * SAMPLE_RATE
        for start in range(0, len(samples), step):
            piece = samples[start : start + step]
            sounds.append(Sound(sound.name, piece, None))
    return sounds


def _is_sound(path: Path) -> bool:
    is_hidden = path.name.startswith(".")
    return path.is_file() and not is_hidden and path.suffix.lower() not in _NO_SOUND


class Calibration:
    """Knows H = X^T X of the inputs X of every product, in the order of the network.

    The embedding comes last: its inputs are those of the logits.
    """

    def __init__(self, files: ModelFiles, sounds: Sequence[Sound]) -> None:
        self._files = files
        self._sounds = sounds
        self._dtype = best_dtype()
        tokenizer = Tokenizer.from_file(
            files.tokenizer_path, files.config.decoder.vocab_size
        )
        self._network = empty_network(files, tokenizer.left_pad_tokens)
        self._stages = self._run()
        self._sums: dict[str, mx.array] = {}

    def hessian(self, path: str) -> mx.array:
        """Return H [n, n], float32, of the network's module `path`.

        It must be asked for in order; those passed over are lost.
        """
        while path not in self._sums:
            self._sums = {}
            mx.clear_cache()
            self._sums = next(self._stages)
        return self._sums[path]

    def _run(self) -> Iterator[dict[str, mx.array]]:
        network, files = self._network, self._files
        ids = self._ids()
        self._fill("encoder.stem")
        hidden = [self._frames(sound) for sound in self._sounds]
        encoder = files.config.encoder
        for i, layer in enumerate(network.encoder.layers):
            path = f"encoder.layers.{i}"
            self._fill(path)
            rings = [self._ring(encoder, network.encoder.group) for _ in hidden]
            yield _through(path, layer, hidden, rings, network.encoder.rotary)
            _forget(layer)
        self._fill("encoder.norm")
        self._fill("adapter")
        joined = [self._joined(network.encoder.norm(x)) for x in hidden]
        first, second = network.adapter.linear1, network.adapter.linear2
        inner = [gelu(first(x)) for x in joined]
        yield {"adapter.linear1": _sum(joined), "adapter.linear2": _sum(inner)}
        self._fill("decoder.embedding")
        hidden = [
            (second(x)[:, : tokens.shape[1]] + network.decoder.embed(tokens))
            for x, tokens in zip(inner, ids, strict=True)
        ]
        mx.eval(hidden)
        _forget(network.decoder.embedding)
        decoder = files.config.decoder
        time = time_embedding([delay_tokens(DELAY_MS)], decoder.dim)
        for i, layer in enumerate(network.decoder.layers):
            path = f"decoder.layers.{i}"
            self._fill(path)
            rings = [self._ring(decoder, 1) for _ in hidden]
            norm = layer.conditioned_norm(time)
            yield _through(path, layer, hidden, rings, network.decoder.rotary, norm)
            _forget(layer)
        self._fill("decoder.norm")
        # Logits are computed from where the prompt ends.
        start = network.left_pad_tokens + delay_tokens(DELAY_MS)
        yield {
            "decoder.embedding": _sum(
                [network.decoder.norm(x[:, start:]) for x in hidden]
            )
        }

    def _ids(self) -> list[mx.array]:
        """The tokens [1, n] that the decoder is given for each sound."""
        model = load(self._files.directory, _name(self._dtype), embedding_bits=16).model
        n_prompt = 1 + model.left_pad_tokens + delay_tokens(DELAY_MS)
        prompt = [BOS_ID] + [STREAMING_PAD_ID] * (n_prompt - 1)
        found: list[mx.array] = []
        for sound in self._sounds:
            samples = _padded(sound, model)
            ids = greedy_ids(model, samples, model.make_state(DELAY_MS))
            tokens = np.concatenate([prompt, ids[ids >= 0][:-1]])
            found.append(mx.array(tokens[None].astype(np.int32)))
        mx.clear_cache()
        return found

    def _frames(self, sound: Sound) -> mx.array:
        """Encoder frames [1, 4 n, dim] as the first layer gets them."""
        network, stem = self._network, self._network.encoder.stem
        samples = _padded(sound, network)
        mel_frames = network.mel.step(samples, network.mel.make_state())
        state = stem.make_state(1)
        (frames,) = stem.step_together([mel_frames.astype(self._dtype)], [state])
        n = frames.shape[1] // network.encoder.group * network.encoder.group
        mx.eval(frames)
        return frames[:, :n]

    def _joined(self, frames: mx.array) -> mx.array:
        _, n, dim = frames.shape
        group = self._network.encoder.group
        return frames.reshape(1, n // group, dim * group)

    def _ring(self, config: EncoderConfig | DecoderConfig, step: int) -> RingKVCache:
        return RingKVCache.make(
            n_layers=1,
            batch=1,
            n_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            window=config.sliding_window,
            step=step,
            dtype=self._dtype,
        )

    def _fill(self, path: str) -> None:
        parameters = list(read_parameters(self._files, self._dtype, path))
        self._network.load_weights(parameters, strict=False)


class _Watched(nn.Module):
    """A product whose inputs are summed up."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.inputs = mx.array(0.0)
        if "bias" in inner:
            self.bias = inner.bias  # the layer adds it, not the product

    def __call__(self, x: mx.array) -> mx.array:
        self.inputs = self.inputs + _sum([x])
        return matmul(self.inner, x)


def _through(
    path: str,
    layer: Layer,
    hidden: list[mx.array],
    rings: Sequence[RingKVCache],
    rotary: RotaryEmbedding,
    norm: mx.array | None = None,
) -> dict[str, mx.array]:
    """Apply the layer to all of `hidden`, in place; what its products have seen."""
    attention, mlp = layer.attention, layer.mlp
    watched = {
        f"{path}.attention.qkv_proj": _Watched(attention.qkv_proj),
        f"{path}.attention.o_proj": _Watched(attention.o_proj),
        f"{path}.mlp.gate_up_proj": _Watched(mlp.gate_up_proj),
        f"{path}.mlp.down_proj": _Watched(mlp.down_proj),
    }
    for name, module in watched.items():
        owner, _, attribute = name.removeprefix(f"{path}.").partition(".")
        setattr(layer[owner], attribute, module)
    for i, (x, ring) in enumerate(zip(hidden, rings, strict=True)):
        parts: list[mx.array] = []
        for start in range(0, x.shape[1], _POSITIONS):
            piece = x[:, start : start + _POSITIONS]
            step = begin_step([ring], rotary, [piece.shape[1]], attention.n_kv_heads)
            residual = layer(Residual(piece), 0, step, norm)
            whole, _ = residual.normed(
                layer.attention_norm.weight, layer.attention_norm.eps
            )
            mx.eval(whole, [module.inputs for module in watched.values()])
            parts.append(whole)
        hidden[i] = mx.concatenate(parts, axis=1)
        mx.eval(hidden[i])
    return {name: module.inputs for name, module in watched.items()}


def _forget(module: nn.Module) -> None:
    """Let the memory of its parameters go."""
    module.update(tree_map(lambda _: mx.zeros(0), module.parameters()))


def _sum(inputs: Sequence[mx.array]) -> mx.array:
    """X^T X [n, n], float32, of inputs [1, T, n]."""
    total = mx.array(0.0)
    for x in inputs:
        flat = x.reshape(-1, x.shape[-1]).astype(mx.float32)
        total = total + flat.T @ flat
        mx.eval(total)
    return total


def _padded(sound: Sound, model: VoxtralRealtime) -> mx.array:
    padded = sound.padded_by(model.left_pad_tokens)
    return mx.array(np.pad(padded, (0, model.mel.lookahead)))[None]


def _name(dtype: mx.Dtype) -> DtypeName:
    return cast("DtypeName", str(dtype).removeprefix("mlx.core."))
