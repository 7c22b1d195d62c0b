"""The reference operations against textbook NumPy."""

import math
from unittest.mock import patch

import mlx.core as mx
import numpy as np
import pytest

from voxmlx import kernels
from voxmlx.kernels import ops
from voxmlx.kernels.pow_attention import pow_attention

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "op", [kernels.attention, kernels.attention_reference, pow_attention]
)
@pytest.mark.parametrize("n_queries", [1, 3, 20])
@pytest.mark.parametrize("has_mask", [True, False])
def test_attention_is_softmax_of_scores_times_values(
    op, n_queries: int, has_mask: bool
) -> None:
    q, k, v = normal(2, 4, n_queries, 8), normal(2, 2, 5, 8), normal(2, 2, 5, 8)
    mask = np.ones((2, 1, n_queries, 5), bool)
    if has_mask:
        mask = RNG.random((2, 1, n_queries, 5)) < 0.6
        mask[..., 0] = True
    scores = np.einsum("bhtd,bhsd->bhts", q, k.repeat(2, axis=1)) * 0.3
    scores = np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhts,bhsd->bhtd", weights, v.repeat(2, axis=1))
    got = op(
        mx.array(q),
        mx.array(k),
        mx.array(v),
        mx.array(mask.tolist()) if has_mask else None,
        0.3,
    )
    np.testing.assert_allclose(np.array(got), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("shift", [-300.0, 0.0, 300.0])
def test_attention_by_powers_bears_scores_of_any_size(shift: float) -> None:
    q, k, v = normal(1, 2, 4, 8), normal(1, 2, 9, 8), normal(1, 2, 9, 8)
    q[..., 0], k[..., 0] = shift, 1.0  # the same for every key: no weight changes
    x, y, z = mx.array(q), mx.array(k), mx.array(v)
    exact = kernels.attention_reference(x, y, z, None, 1.0)
    got = pow_attention(x, y, z, None, 1.0)
    np.testing.assert_allclose(np.array(got), np.array(exact), rtol=0, atol=1e-4)


def as_reference(x: mx.array, angles: mx.array, bias: mx.array | None) -> mx.array:
    return kernels.rotate_reference(x, angles, bias)


def as_here(x: mx.array, angles: mx.array, bias: mx.array | None) -> mx.array:
    R, half = angles.shape[2], angles.shape[4]
    n_heads = x.shape[2] // (R * 2 * half)
    return kernels.rotate(x, kernels.rotation(np.array(angles), n_heads), bias)


def as_on_metal(x: mx.array, angles: mx.array, bias: mx.array | None) -> mx.array:
    with patch.object(ops, "has_metal", lambda: True):
        R, half = angles.shape[2], angles.shape[4]
        n_heads = x.shape[2] // (R * 2 * half)
        step = kernels.rotation(np.array(angles), n_heads)
    with patch.object(ops.Fused, "__call__", lambda self, *a: self.body(*a)):
        return kernels.rotate(x, step, bias)


@pytest.mark.parametrize("op", [as_reference, as_here, as_on_metal])
@pytest.mark.parametrize("has_bias", [True, False])
def test_rotation_turns_interleaved_pairs(op, has_bias: bool) -> None:
    # Three groups of two heads, [B, T, R, H / R, D], of which the last is not turned.
    x, angle, bias = normal(2, 4, 3, 2, 6), normal(2, 4, 3, 1, 3), normal(3, 2, 6)
    angle[:, :, 1:2] = angle[:, :, :1]
    angle[:, :, 2] = 0
    biased = x + bias * has_bias
    turned = (biased[..., ::2] + 1j * biased[..., 1::2]) * np.exp(1j * angle)
    got = np.array(
        op(
            mx.array(x.reshape(2, 4, -1)),
            mx.array(np.exp(1j * angle).astype(np.complex64)),
            mx.array(bias.reshape(-1)) if has_bias else None,
        )
    ).reshape(x.shape)
    np.testing.assert_allclose(got[..., ::2], turned.real, atol=1e-6)
    np.testing.assert_allclose(got[..., 1::2], turned.imag, atol=1e-6)
    np.testing.assert_array_equal(got[:, :, 2], biased[:, :, 2])


def test_gelu_is_the_exact_one() -> None:
    x = normal(50)
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    np.testing.assert_allclose(np.array(kernels.gelu(mx.array(x))), expected, atol=1e-6)


def test_swiglu_gates_the_second_half_by_the_first() -> None:
    x = normal(3, 10)
    gate, up = x[:, :5], x[:, 5:]
    expected = gate / (1 + np.exp(-gate)) * up
    got = np.array(kernels.swiglu(mx.array(x)))
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("n_weights", [0, 1, 2])
@pytest.mark.parametrize("has_bias", [True, False])
def test_adding_then_normalising_scales_the_sum_to_unit_mean_square(
    n_weights: int, has_bias: bool
) -> None:
    x, residual, bias = normal(2, 3, 8), normal(2, 3, 8), normal(8)
    weight = normal(n_weights, 8) if n_weights else normal(8)
    h = (x + bias if has_bias else x) + residual
    y = h / np.sqrt((h**2).mean(-1, keepdims=True) + 0.5)
    y *= weight[:, None] if n_weights else weight
    got = kernels.add_rms_norm(
        mx.array(x),
        mx.array(residual),
        mx.array(weight),
        0.5,
        mx.array(bias) if has_bias else None,
    )
    np.testing.assert_array_equal(np.array(got[0]), h)
    np.testing.assert_allclose(np.array(got[1]), y, atol=2e-6)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_operations_keep_a_half_precision_dtype(dtype: mx.Dtype) -> None:
    x = mx.ones((1, 2, 3, 4), dtype)
    angles = mx.ones((1, 2, 3, 1, 2), mx.complex64)
    for bias in (None, mx.ones((12,), dtype)):
        for op in (as_reference, as_here, as_on_metal):
            assert op(x.reshape(1, 2, 12), angles, bias).dtype == dtype
    for part in kernels.add_rms_norm(x[0], x[0], x[0, 0, 0], 1e-5):
        assert part.dtype == dtype
    assert kernels.gelu(x).dtype == dtype
    assert kernels.swiglu(x).dtype == dtype
    assert kernels.attention(x, x, x, None, 1.0).dtype == dtype
    assert kernels.attention_reference(x, x, x, None, 1.0).dtype == dtype
