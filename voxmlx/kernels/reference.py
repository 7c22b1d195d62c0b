"""Reference operations in plain mx: they define what is correct."""

import math

import mlx.core as mx

__all__ = [
    "add_rms_norm_reference",
    "attention_reference",
    "gelu_reference",
    "rotate_reference",
    "rotated_pairs_reference",
    "swiglu_reference",
]


def attention_reference(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    mask: mx.array | None,
    scale: float,
) -> mx.array:
    """softmax(scale * q k^T) v, with the softmax in float32.

    queries [B, Hq, T, D], keys and values [B, Hk, S, D], Hq a multiple of Hk;
    mask [B or 1, 1, T, S] is True where a query may look, None where it may look
    everywhere. Returns [B, Hq, T, D] in the dtype of the queries.
    """
    B, Hq, T, D = queries.shape
    Hk = keys.shape[1]
    q = mx.reshape((queries * scale).astype(mx.float32), (B, Hk, Hq // Hk, T, D))
    k = keys.astype(mx.float32)[:, :, None]
    v = values.astype(mx.float32)[:, :, None]
    scores = q @ k.swapaxes(-1, -2)  # [B, Hk, Hq / Hk, T, S]
    if mask is not None:
        scores = mx.where(mask[:, :, None], scores, -mx.inf)
    weights = mx.softmax(scores, axis=-1, precise=True)
    return mx.reshape(weights @ v, (B, Hq, T, D)).astype(queries.dtype)


def rotate_reference(
    x: mx.array, angles: mx.array, bias: mx.array | None = None
) -> mx.array:
    """Rotate interleaved pairs of x [B, T, H D] (+ bias [H D]), in float32.

    `angles` [B or 1, T, R, 1, D / 2] are cos + i sin of the angles, complex64, for R
    groups of as many heads each; a pair is a complex number, (x0 + i x1) * turn.
    RoPE as in Su et al. 2021, arXiv:2104.09864, equation 15.
    """
    _, T, R, _, half = angles.shape
    exact = x.astype(mx.float32)
    if bias is not None:
        exact = exact + bias.astype(mx.float32)
    pairs = mx.reshape(exact.view(mx.complex64), (x.shape[0], T, R, -1, half))
    turned = mx.reshape(pairs * angles, (*x.shape[:2], -1))
    return turned.view(mx.float32).astype(x.dtype)


def rotated_pairs_reference(
    first: mx.array,
    second: mx.array,
    of_first: mx.array,
    of_second: mx.array,
    *biases: mx.array,
) -> mx.array:
    """`rotate_reference` for pairs [..., D / 2, 2] in real numbers, element by element.

    `first` and `second` [..., D / 2, 1] are the two numbers of each pair, so are two
    `biases`. `of_first` is (cos, sin) and `of_second` (-sin, cos), [..., D / 2, 2].
    """
    x, y = first.astype(mx.float32), second.astype(mx.float32)
    if biases:
        x, y = x + biases[0], y + biases[1]
    return (x * of_first + y * of_second).astype(first.dtype)


def gelu_reference(x: mx.array, *bias: mx.array) -> mx.array:
    """x (+ bias) times the normal distribution function of it: the exact GELU."""
    if bias:
        x = x + bias[0]
    return x * (1 + mx.erf(x / math.sqrt(2))) / 2


def swiglu_reference(gate_up: mx.array) -> mx.array:
    """silu(gate) * up for gate and up side by side: [..., 2 F] -> [..., F].

    In float16, whose largest number is 65504, what would be larger is that.
    """
    gate, up = mx.split(gate_up, 2, axis=-1)
    if gate_up.dtype != mx.float16:
        return gate * mx.sigmoid(gate) * up
    largest = mx.finfo(mx.float16).max
    gate, up = mx.clip(gate, -largest, largest), mx.clip(up, -largest, largest)
    return mx.clip(gate * mx.sigmoid(gate) * up, -largest, largest)


def add_rms_norm_reference(
    x: mx.array,
    residual: mx.array,
    weight: mx.array,
    eps: float,
    bias: mx.array | None = None,
) -> tuple[mx.array, mx.array]:
    """(h, y): h = x + bias + residual, y = h / rms(h) * weight, each [B, N, D] as x is.

    `weight` [D] or [1, D] serves every row, [B, D] a row per stream. The root mean
    square is taken in float32, over h as it is rounded to its dtype.
    """
    h = (x if bias is None else x + bias) + residual
    if weight.ndim == 1 or weight.shape[0] == 1:
        return h, mx.fast.rms_norm(h, mx.reshape(weight, (-1,)), eps)
    return h, mx.fast.rms_norm(h, None, eps) * weight[:, None]
