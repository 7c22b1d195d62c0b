"""The network as a function that has gradients: numbers of pieces of sound -> logits.

Programs for language models map ids to logits. Here a number names a piece of sound, and
each piece brings the ids that its source heard. All pieces of a batch are heard from
their beginning, in one step: it is the same layers as ever, over a fresh ring.
"""

# pyright: standard
# mlx.nn has no types.

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten
from numpy.typing import NDArray

from voxmlx import Checkpoint
from voxmlx.config import DecoderConfig, EncoderConfig, delay_tokens
from voxmlx.layouts.recipes import DtypeName
from voxmlx.model import VoxtralRealtime
from voxmlx.model.attention import begin_step
from voxmlx.model.decoder import time_embedding
from voxmlx.model.layer import Layer, Residual
from voxmlx.model.rope import RotaryEmbedding

from .affine import Floats
from .model_reading import (
    forced_together,
    free_ids,
    heard,
    prompt_ids,
    ring_of_layer,
    stem_frames,
)
from .products import times
from .quality import DELAY_MS, Sound

__all__ = ["LearnableProduct", "Piece", "Student", "learnable", "pieces_of"]

# Logits that are kept of each position: the others hold next to no probability.
_N_KEPT = 1024
# Pieces that the source hears side by side.
_ROWS = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of sound, and what the source hears in it."""

    sound: Sound
    ids: NDArray[np.int32]  # [n]
    kept: NDArray[np.int32]  # [n, k] ids of the largest logits after the ids before
    logits: Floats  # [n, k]


def pieces_of(source: Checkpoint, sounds: Sequence[Sound]) -> list[Piece]:
    """Return what `source` hears in each of `sounds`."""
    found: list[Piece] = []
    for start in range(0, len(sounds), _ROWS):
        some = sounds[start : start + _ROWS]
        audio = heard(source, some)
        ids = free_ids(source, audio)
        blocks: list[list[tuple[NDArray[np.int32], Floats]]] = [[] for _ in some]
        for i, block in forced_together(source, audio, ids):
            blocks[i].append(_largest(block))
        for sound, own, parts in zip(some, ids, blocks, strict=True):
            kept, logits = (np.concatenate(x) for x in zip(*parts, strict=True))
            found.append(Piece(sound, own, kept, logits))
    return found


def _largest(rows: Floats) -> tuple[NDArray[np.int32], Floats]:
    n = min(_N_KEPT, rows.shape[1])
    kept = np.argpartition(rows, -n, axis=1)[:, -n:].astype(np.int32)
    return kept, np.take_along_axis(rows, kept, axis=1)


class LearnableProduct(nn.Module):
    """A quantized matrix; `scales` and `biases` are shares of the stored scales.

    So one rate of learning fits all groups. What is used is rounded to the stored type.
    """

    def __init__(self, module: Any, dtype: mx.Dtype, mode: str) -> None:
        super().__init__()
        # By these names mlx_lm knows what to learn: "affine", and fewer than 8 bits.
        self.bits: int = module.bits
        self.group_size: int = module.group_size
        self.mode = mode
        # No parameters, hence the names.
        self._codes = module["weight"]
        self._scales = module["scales"].astype(mx.float32)
        self._biases = module["biases"].astype(mx.float32)
        self._dtype = dtype
        self.scales = mx.ones_like(self._scales)
        self.biases = mx.zeros_like(self._scales)
        if "bias" in module:
            self.bias = module.bias  # who calls the product adds it

    @property
    def weight(self) -> mx.array:
        """Return the packed codes; not an item, so that `matmul` calls this module."""
        return self._codes

    def stored(self) -> tuple[mx.array, mx.array]:
        """Return scales and biases [rows, n_groups] in the stored type."""
        biases = self._biases + mx.abs(self._scales) * self.biases
        scales = self._scales * self.scales
        return scales.astype(self._dtype), biases.astype(self._dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        """X W^T."""
        scales, biases = (part.astype(x.dtype) for part in self.stored())
        if mx.metal.is_available():
            size = self.group_size, self.bits
            return mx.quantized_matmul(x, self._codes, scales, biases, True, *size)
        return times(x, self._dequantized(self._codes, scales, biases))

    def _dequantized(
        self, codes: mx.array, scales: mx.array, biases: mx.array
    ) -> mx.array:
        size, bits = self.group_size, self.bits
        return mx.dequantize(codes, scales, biases, group_size=size, bits=bits)

    def __call__(self, x: mx.array) -> mx.array:
        return self.as_linear(x)


class _LearnableEmbedding(LearnableProduct):
    """The tied embedding: rows [..., dim] for ids, and logits by `as_linear`."""

    def __call__(self, ids: mx.array) -> mx.array:
        scales, biases = (part[ids].astype(mx.float32) for part in self.stored())
        return self._dequantized(self._codes[ids], scales, biases)


def learnable(
    network: VoxtralRealtime, dtype: DtypeName, fixed: Collection[str] = ()
) -> dict[str, LearnableProduct]:
    """Put such products in the place of all quantized ones; by path.

    `dtype` is the type that scales are stored in. Those of `fixed` are not learned.
    """
    found: dict[str, LearnableProduct] = {}
    for path, module in network.named_modules():
        if getattr(module, "mode", None) != "affine" or ".ada." in path:
            continue
        is_embedding = isinstance(module, nn.QuantizedEmbedding)
        kind = _LearnableEmbedding if is_embedding else LearnableProduct
        mode = "fixed" if path in fixed else "affine"
        found[path] = kind(module, getattr(mx, dtype), mode)
    tree: Any = tree_unflatten(list(found.items()))
    network.update_modules(tree)
    return found


class _Block(nn.Module):
    """A layer over whole pieces [B, T, dim], each from its beginning."""

    def __init__(
        self,
        layer: Layer,
        config: EncoderConfig | DecoderConfig,
        rotary: RotaryEmbedding,
        group: int,
    ) -> None:
        super().__init__()
        self.layer = layer
        self._config, self._rotary, self._group = config, rotary, group

    def __call__(self, x: mx.array, norm: mx.array | None = None) -> mx.array:
        config = self._config
        B, T, _ = x.shape
        ring = ring_of_layer(config, B, self._group, x.dtype)
        step = begin_step([ring], self._rotary, [T], config.n_kv_heads)
        residual = self.layer(Residual(x), 0, step, norm)
        plain = self.layer.attention_norm
        return residual.normed(plain.weight, plain.eps)[0]


class Student(nn.Module):
    """Numbers of pieces [B, n], a row of like ones each -> logits [B, n, vocab].

    Its parameters are frozen. It computes as `kernel_switches().with_gradients()` has
    it, if gradients are wanted. Logits beyond a piece's ids are of no meaning.
    """

    def __init__(self, network: VoxtralRealtime, pieces: Sequence[Piece]) -> None:
        super().__init__()
        encoder, decoder = network.encoder, network.decoder
        self._pieces = pieces
        self._prompt = prompt_ids(network)
        self._frames = [
            stem_frames(network, piece.sound, encoder.dtype)[0] for piece in pieces
        ]
        time = time_embedding([delay_tokens(DELAY_MS)], decoder.config.dim)
        self._norms = [layer.conditioned_norm(time) for layer in decoder.layers]
        mx.eval(self._norms, self._frames)

        # A class of its own: mlx_lm changes what the class of `layers` does.
        class Block(_Block):
            pass

        self.encoder = [
            Block(layer, encoder.config, encoder.rotary, encoder.group)
            for layer in encoder.layers
        ]
        self.encoder_norm = encoder.norm
        self.adapter = network.adapter
        self.embedding = decoder.embedding
        self.decoder = [
            Block(layer, decoder.config, decoder.rotary, 1) for layer in decoder.layers
        ]
        self.decoder_norm = decoder.norm
        self.freeze()

    @property
    def layers(self) -> list[nn.Module]:
        """Return all layers: mlx_lm can have them computed twice, to save memory."""
        return [*self.encoder, *self.decoder]

    def numbers(self, piece: int) -> tuple[list[int], int]:
        """Return a piece as a sequence of mlx_lm's: a number more than it has ids."""
        return [piece] * (len(self._pieces[piece].ids) + 1), 0

    def wanted(self, numbers: mx.array) -> tuple[mx.array, mx.array]:
        """Return the source's logits [B, n, k] for `numbers`, and their ids."""
        n = numbers.shape[1]
        pieces = [self._pieces[i] for i in _first_column(numbers)]
        logits = np.stack([_padded(piece.logits, n) for piece in pieces])
        return mx.array(logits), mx.array(
            np.stack([_padded(piece.kept, n) for piece in pieces])
        )

    def __call__(self, numbers: mx.array) -> mx.array:
        chosen = _first_column(numbers)
        x = self._audio(chosen)
        n_prompt, n = len(self._prompt), numbers.shape[1]
        ids = [np.concatenate([self._prompt, self._pieces[i].ids[:-1]]) for i in chosen]
        known = np.stack([_padded(row, x.shape[1]) for row in ids])
        rows = self.embedding(mx.array(known.astype(np.int32)))
        x = x + rows.astype(x.dtype)
        for block, norm in zip(self.decoder, self._norms, strict=True):
            x = block(x, norm)
        # The last position of the prompt is the first whose logits choose an id.
        logits = self.embedding.as_linear(self.decoder_norm(x[:, n_prompt - 1 :]))
        n_more = max(0, n - logits.shape[1])
        return mx.pad(logits, [(0, 0), (0, n_more), (0, 0)])[:, :n]

    def _audio(self, chosen: Sequence[int]) -> mx.array:
        frames = [self._frames[i] for i in chosen]
        most = max(len(x) for x in frames)
        x = mx.stack([mx.pad(x, [(0, most - len(x)), (0, 0)]) for x in frames])
        for block in self.encoder:
            x = block(x)
        return self.adapter(self.encoder_norm(x))

    def divergence(self, pieces: Sequence[int], batch: int) -> float:
        """Return the mean KL to the source, in nats, over the ids of `pieces`."""
        lost: list[Floats] = []
        for start in range(0, len(pieces), batch):
            some = pieces[start : start + batch]
            lengths = [len(self._pieces[i].ids) for i in some]
            numbers = mx.array([[i] * max(lengths) for i in some])
            logits, kept = self.wanted(numbers)
            own = mx.take_along_axis(self(numbers), kept, axis=-1)
            p, q = _log_softmax(logits), _log_softmax(own)
            rows = np.array((mx.exp(p) * (p - q)).sum(axis=-1))
            lost += [row[:n] for row, n in zip(rows, lengths, strict=True)]
        return float(np.concatenate(lost).mean(dtype=np.float64))


def _log_softmax(logits: mx.array) -> mx.array:
    x = logits.astype(mx.float32)
    return x - mx.logsumexp(x, axis=-1, keepdims=True)


def _first_column(numbers: mx.array) -> list[int]:
    found: Any = numbers[:, 0].tolist()
    return found


def _padded(rows: NDArray[Any], n: int) -> NDArray[Any]:
    return np.pad(rows, [(0, n - len(rows)), *[(0, 0)] * (rows.ndim - 1)])
