"""A stack of layers in NumPy: on a CPU, MLX's operations cost ten times as much."""

# pyright: standard
# mlx.nn has no types.

import operator
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from voxmlx.kernels import runs_in_numpy
from voxmlx.kernels.evaluation import as_numpy
from voxmlx.kernels.numpy_bodies import Floats, product_of_rows, rms_norm_of_rows
from voxmlx.model.attention import Step, StreamStep

__all__ = ["numpy_layers"]


def numpy_layers(
    layers: Sequence[nn.Module],
    x: mx.array,
    step: Step,
    mlp_norms: mx.array | None,
) -> mx.array | None:
    """x [B, T, dim] -> x behind all layers, as `Layer` computes it, and rings written.

    `mlp_norms` [n_layers, 1 or N, dim] replace the second norms' weights, a row for
    each of the N positions. Returns None where only MLX can compute it: on a GPU, with
    quantized matrices or rings, and for several rows of one cache.
    """
    if not runs_in_numpy(x) or not all(_is_plain(s) for s in step.streams):
        return None
    known: list[_Weights] = []
    for layer in layers:
        if (one := _layer_weights(layer)) is None:
            return None
        known.append(one)
    B, T, dim = x.shape
    rows = as_numpy(x).reshape(B * T, dim)
    angles = _laid_out(step.angles, known[0])
    norms = None if mlp_norms is None else as_numpy(mlp_norms)
    streams = [_Stream(s) for s in step.streams]
    # What is not finite passes through: who reads ids sees it.
    with np.errstate(all="ignore"):
        for i, one in enumerate(known):
            norm: Any = one.mlp_norm if norms is None else norms[i]
            rows = _layer(one, rows, norm, angles, streams, i)
    return mx.array(rows).reshape(B, T, dim)


def _laid_out(angles: NDArray[np.complex64], w: Any) -> NDArray[np.complex64]:
    """Angles [B, T, R, 1, D / 2] -> [B T, all pairs]; those of queries scale them, too."""
    R, half = angles.shape[2], angles.shape[4]
    of_groups = angles.reshape(-1, R, 1, half)
    n_kv_heads = w.n_heads // (R - 2)
    every = np.empty((len(of_groups), R, n_kv_heads, half), np.complex64)
    every[:] = of_groups
    every[:, :-2] *= w.scale
    return every.reshape(len(of_groups), -1)


class _Weights:
    """One layer's arrays as NumPy sees them, without copies."""

    __slots__ = (
        "attention_norm",
        "down",
        "down_bias",
        "eps",
        "gate_up",
        "head_dim",
        "mlp_norm",
        "n_heads",
        "o",
        "o_bias",
        "qkv",
        "qkv_bias",
        "scale",
        "sources",
    )

    def __init__(self, layer: Any, sources: tuple[mx.array | None, ...]) -> None:
        self.sources = sources
        arrays = [None if a is None else as_numpy(a) for a in sources]
        self.attention_norm: Any
        (
            self.attention_norm,
            self.qkv,
            self.qkv_bias,
            self.o,
            self.o_bias,
            self.mlp_norm,
            self.gate_up,
            self.down,
            self.down_bias,
        ) = arrays
        attention = layer["attention"]
        self.n_heads: int = attention.n_heads
        self.head_dim: int = attention.head_dim
        self.scale = np.float32(attention.scale)
        self.eps = np.float32(layer["attention_norm"].eps)


def _layer_weights(layer: Any) -> _Weights | None:
    """Return a layer's _Weights; None where a matrix is not dense float32."""
    attention, mlp = layer["attention"], layer["mlp"]
    qkv, o, down = attention["qkv_proj"], attention["o_proj"], mlp["down_proj"]
    gate_up = mlp["gate_up_proj"]
    sources = (
        layer["attention_norm"]["weight"],
        qkv.get("weight"),
        qkv.get("bias"),
        o.get("weight"),
        o.get("bias"),
        layer["mlp_norm"]["weight"],
        gate_up.get("weight"),
        down.get("weight"),
        down.get("bias"),
    )
    kept = getattr(layer, "_in_numpy", None)
    if kept is not None and all(map(operator.is_, sources, kept.sources)):
        return kept
    for matrix in (qkv, o, gate_up, down):
        weight = matrix.get("weight")
        if weight is None or weight.dtype != mx.float32:
            return None
    # A plain attribute: no parameter of the module.
    kept = _Weights(layer, sources)
    object.__setattr__(layer, "_in_numpy", kept)
    return kept


def _is_plain(stream: StreamStep) -> bool:
    """Return whether a stream's rings are one row of float32 numbers."""
    cache = stream.cache
    return cache.bits == 16 and len(cache.head) == 1


class _Stream:
    """One stream's part of a step: its rows, its rings, and what its queries see."""

    __slots__ = ("plan", "positions", "rings", "shade")

    def __init__(self, stream: StreamStep) -> None:
        self.plan = stream.ring
        self.positions = stream.positions
        self.rings = stream.cache.writable_rings()
        visible = stream.ring.visible()
        self.shade: Floats | None = None
        if visible is not None:
            self.shade = np.where(visible[0, 0], np.float32(0), np.float32(-np.inf))

    def updated(self, layer: int, kv: Floats) -> Floats:
        """Store kv [2 H, n, D]; returns what is attended to, [2 H, S, D]."""
        ring, plan = self.rings[layer], self.plan
        if isinstance(plan.slots, int):
            ring[:, plan.slots : plan.slots + kv.shape[1]] = kv
            return ring[:, : plan.n_visible]
        seen = kv
        if plan.history is not None:
            seen = np.concatenate([ring[:, plan.history[0]], kv], axis=1)
        ring[:, plan.slots[0]] = kv[:, -plan.n_written :]
        return seen


def _layer(
    w: Any,
    x: Floats,
    mlp_norm: Floats,
    angles: NDArray[np.complex64],
    streams: Sequence[_Stream],
    layer: int,
) -> Floats:
    """Rows x [N, dim] through one layer."""
    qkv = product_of_rows(rms_norm_of_rows(x, w.attention_norm, w.eps), w.qkv)
    if w.qkv_bias is not None:
        qkv += w.qkv_bias
    turned = qkv.view(np.complex64)
    turned *= angles
    heads = qkv.reshape(len(x), -1, w.head_dim)
    if len(streams) == 1:
        attended = _attended(heads, w.n_heads, streams[0], layer)
    else:
        attended = np.concatenate(
            [_attended(heads[s.positions], w.n_heads, s, layer) for s in streams]
        )
    branch = product_of_rows(attended, w.o)
    if w.o_bias is not None:
        branch += w.o_bias
    x = x + branch
    gate_up = product_of_rows(rms_norm_of_rows(x, mlp_norm, w.eps), w.gate_up)
    F = gate_up.shape[1] // 2
    gate, up = gate_up[:, :F], gate_up[:, F:]
    inner = np.exp(-gate)
    inner += 1
    np.divide(gate, inner, out=inner)
    inner *= up
    branch = product_of_rows(inner, w.down)
    if w.down_bias is not None:
        branch += w.down_bias
    branch += x
    return branch


def _attended(heads: Floats, n_heads: int, stream: _Stream, layer: int) -> Floats:
    """Heads [n, Hq + 2 H, D], rotated and scaled -> what the queries saw, [n, Hq D]."""
    n, _, D = heads.shape
    by_head = heads.swapaxes(0, 1)
    seen = stream.updated(layer, by_head[n_heads:])
    H = len(seen) // 2
    G = n_heads // H
    # Queries that share keys lie below each other: one product for all of them.
    q = by_head[:n_heads]
    if G > 1:
        q = q.reshape(H, G * n, D)
    scores = q @ seen[:H].swapaxes(1, 2)
    if stream.shade is not None:
        of_heads = scores.reshape(H, G, n, -1)
        of_heads += stream.shade
    scores -= scores.max(axis=2, keepdims=True)
    np.exp(scores, out=scores)
    out = scores @ seen[H:]
    out /= scores.sum(axis=2, keepdims=True)
    return out.reshape(n_heads, n, D).swapaxes(0, 1).reshape(n, -1)
