"""A stack of layers in NumPy: on a CPU, MLX's operations cost ten times as much."""

# pyright: standard
# mlx.nn has no types.

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from voxmlx.kernels.evaluation import as_numpy
from voxmlx.kernels.numpy_product import Floats, product_in_numpy, runs_in_numpy
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
    weights = [_layer_weights(layer) for layer in layers]
    known = [one for one in weights if one is not None]
    if len(known) < len(weights):
        return None
    B, T, dim = x.shape
    rows = as_numpy(x).reshape(B * T, dim)
    angles = step.angles.reshape(B * T, *step.angles.shape[2:])
    norms = None if mlp_norms is None else as_numpy(mlp_norms)
    streams = [_Stream(s) for s in step.streams]
    # What is not finite passes through: who reads ids sees it.
    with np.errstate(all="ignore"):
        for i, one in enumerate(known):
            norm = one.mlp_norm if norms is None else norms[i]
            rows = _layer(one, rows, norm, angles, streams, i)
    return mx.array(rows).reshape(B, T, dim)


class _Weights:
    """One layer's arrays as NumPy sees them, without copies."""

    __slots__ = (
        "attention_norm",
        "down",
        "down_bias",
        "eps",
        "gate_up",
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
        self.scale = np.float32(attention.scale)
        self.eps = np.float32(layer["attention_norm"].eps)


def _layer_weights(layer: Any) -> Any:
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
    if kept is not None and all(map(lambda a, b: a is b, sources, kept.sources)):
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
        if plan.history is not None and plan.history.shape[1]:
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
    qkv = product_in_numpy(_normed(x, w.attention_norm, w.eps), w.qkv)
    if w.qkv_bias is not None:
        qkv += w.qkv_bias
    N, R, _, half = angles.shape
    turned = qkv.view(np.complex64).reshape(N, R, -1, half)
    turned *= angles
    heads = qkv.reshape(N, -1, 2 * half)
    if len(streams) == 1:
        attended = _attended(heads, w, streams[0], layer)
    else:
        attended = np.concatenate(
            [_attended(heads[s.positions], w, s, layer) for s in streams]
        )
    branch = product_in_numpy(attended, w.o)
    if w.o_bias is not None:
        branch += w.o_bias
    x = x + branch
    gate_up = product_in_numpy(_normed(x, mlp_norm, w.eps), w.gate_up)
    F = gate_up.shape[1] // 2
    gate, up = gate_up[:, :F], gate_up[:, F:]
    inner = np.exp(-gate)
    inner += 1
    np.divide(gate, inner, out=inner)
    inner *= up
    branch = product_in_numpy(inner, w.down)
    if w.down_bias is not None:
        branch += w.down_bias
    branch += x
    return branch


def _normed(x: Floats, weight: Floats, eps: np.float32) -> Floats:
    """x [N, dim] over its root mean square, times weight [dim] or [1 or N, dim]."""
    mean = np.einsum("nd,nd->n", x, x) / np.float32(x.shape[1])
    return x * np.reciprocal(np.sqrt(mean + eps))[:, None] * weight


def _attended(heads: Floats, w: Any, stream: _Stream, layer: int) -> Floats:
    """Heads [n, Hq + 2 H, D], rotated -> what the queries saw, [n, Hq D]."""
    n, _, D = heads.shape
    seen = stream.updated(layer, heads[:, w.n_heads :].swapaxes(0, 1))
    H = seen.shape[0] // 2
    # Queries that share keys lie below each other: one product for all of them.
    q = (heads[:, : w.n_heads] * w.scale).reshape(n, H, -1, D).transpose(1, 2, 0, 3)
    G = q.shape[1]
    scores = q.reshape(H, G * n, D) @ seen[:H].swapaxes(1, 2)
    if stream.shade is not None:
        of_heads = scores.reshape(H, G, n, -1)
        of_heads += stream.shade
    scores -= scores.max(axis=2, keepdims=True)
    np.exp(scores, out=scores)
    out = scores @ seen[H:]
    out /= scores.sum(axis=2, keepdims=True)
    return out.reshape(H, G, n, D).transpose(2, 0, 1, 3).reshape(n, -1)
