"""Every Metal kernel, executed, computes what its reference defines."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.metal.conftest import Emulate
from tests.metal.emulator.dispatch import Options
from tests.metal.streams import (
    DTYPES,
    Entries,
    Rings,
    entries,
    error_bounds,
    normal,
    rings,
)
from voxmlx import kernels
from voxmlx.kernels import metal
from voxmlx.kernels.ring_reference import visible_slots

# Of a norm, relative: a unit in the last place, since results are rounded twice. In
# float32 it is the order in which up to 3072 squares are summed.
NORM_ERROR = {mx.float32: 2e-6, mx.float16: 2.0**-10, mx.bfloat16: 2.0**-7}

# A rotation may round either way where it lies between two numbers of the dtype, and
# a query that was rounded so sees its keys by as much more or less.
ROTATION_ERROR = {mx.float32: 3e-7, mx.float16: 2.0**-10, mx.bfloat16: 2.0**-7}
ATTENTION_SLACK = {mx.float32: 2e-6, mx.float16: 2e-3, mx.bfloat16: 1.6e-2}

NINE_AGES = [1, 2, 39, 40, 41, 63, 64, 65, 1000]


def exact_attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    visible: mx.array,
    scale: float,
) -> mx.array:
    """Attention in float64, rounded once.

    The reference in float32 is no measure of a kernel in float32: over 8192 keys a CPU
    that sums one after another is off by 5e-6, the kernel by 5e-7.
    """
    B, H, T, D = queries.shape
    q, k, v = (
        np.array(x.astype(mx.float32)).astype(np.float64)
        for x in (queries, keys, values)
    )
    q = q.reshape(B, k.shape[1], -1, T, D) * scale
    scores = q @ k[:, :, None].swapaxes(-1, -2)
    scores = np.where(np.array(visible)[:, :, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out = (weights @ v[:, :, None]).reshape(B, H, T, D)
    return mx.array(out.astype(np.float32))


def assert_within(got: mx.array, exact: mx.array, dtype: mx.Dtype) -> None:
    assert got.dtype == dtype
    assert got.shape == exact.shape
    excess = mx.abs(got.astype(mx.float32) - exact) - error_bounds(exact, dtype)
    assert (excess <= 0).all().item()


def check_q8(r: Rings) -> None:
    rows = kernels.quantize_rows_reference(mx.concatenate([r.keys, r.values], axis=1))
    got = kernels.ring_attention_q8(r.queries, rows, r.meta, r.scale)
    keys, values = kernels.dequantize_rows(rows, mx.float32)
    visible = visible_slots(r.meta, r.queries.shape[2], keys.shape[2])
    exact = exact_attention(r.queries, keys, values, visible, r.scale)
    assert_within(got, exact, r.queries.dtype)


def check_window(e: Entries) -> None:
    """Out of the kernel comes what attention makes of a ring with the entries in it.

    They lie in the ring's slots here as the next step would write them.
    """
    dtype = e.qkv.dtype
    got, rows = kernels.window_attention(*e.arguments())
    B, N, _ = e.qkv.shape
    n_ring_heads, capacity, D = e.ring.shape[1:]
    angles = e.angles.view(mx.complex64)
    turned = kernels.rotate_reference(e.qkv, angles, e.bias).reshape(B, N, -1, D)
    queries, right_rows = mx.split(
        turned.swapaxes(1, 2), [turned.shape[2] - n_ring_heads], axis=1
    )
    # A product more or less of rounding, before the one to the dtype.
    error = mx.abs(rows.astype(mx.float32) - right_rows.astype(mx.float32))
    assert (error <= ROTATION_ERROR[dtype] * (1 + mx.abs(right_rows))).all().item()
    # Room enough that no entry a query may see is written over.
    spare = mx.zeros((B, n_ring_heads, N, D), dtype)
    ring = mx.concatenate([e.ring, spare], axis=2)
    visible = np.zeros((B, 1, N, capacity + N), bool)
    ages_of: Any = e.meta.tolist()
    for b, (end, held, window) in enumerate(ages_of):
        ages = (end - 1 - np.arange(capacity)) % capacity + N
        for q in range(N):
            distance = ages - (N - 1 - q)
            visible[b, 0, q, :capacity] = (ages - N < held) & (distance < window)
            for newest in range(N):
                visible[b, 0, q, capacity + newest] = 0 <= q - newest < window
    ring[:, :, capacity:] = rows
    keys, values = mx.split(ring, 2, axis=1)
    exact = exact_attention(queries, keys, values, mx.array(visible), e.scale)
    slack = ATTENTION_SLACK[dtype]
    excess = mx.abs(got.swapaxes(1, 2).astype(mx.float32) - exact)
    excess -= error_bounds(exact, dtype) + slack
    assert got.dtype == dtype
    assert (excess <= 0).all().item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("n_streams", "n", "dim", "n_weights", "has_bias"),
    [(1, 1, 3072, 0, False), (1, 4, 1280, 1, True), (3, 2, 96, 3, True)],
)
def test_add_rms_norm(
    emulate: Emulate,
    dtype: mx.Dtype,
    n_streams: int,
    n: int,
    dim: int,
    n_weights: int,
    has_bias: bool,
) -> None:
    emulated = emulate()
    rng = np.random.default_rng(dim)
    x, residual = (normal(rng, n_streams, n, dim, dtype=dtype) for _ in range(2))
    shape = (n_weights, dim) if n_weights else (dim,)
    weight = normal(rng, *shape, dtype=dtype)
    bias = normal(rng, dim, dtype=dtype) if has_bias else None
    h, y = kernels.add_rms_norm(x, residual, weight, 1e-5, bias)
    right_h, right_y = kernels.add_rms_norm_reference(x, residual, weight, 1e-5, bias)
    assert (h == right_h).all().item()
    exact = right_y.astype(mx.float32)
    error = mx.abs(y.astype(mx.float32) - exact)
    assert (error <= NORM_ERROR[dtype] * mx.abs(exact)).all().item()
    assert emulated["add_rms_norm"].n_calls == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 8, 1, 128), (3, 2, 5, 64), (9, 1, 1, 16), (1, 2, 16, 32)]
)
def test_quantize_rows_to_the_bit(
    emulate: Emulate, dtype: mx.Dtype, shape: tuple[int, ...]
) -> None:
    emulated = emulate()
    rng = np.random.default_rng(1)
    keys, values = (normal(rng, *shape, dtype=dtype) * s for s in (3.0, 0.01))
    keys[0, 0, 0] = 0
    kv = mx.concatenate([keys, values], axis=1).astype(dtype)
    got = kernels.quantize_rows(kv)
    right = kernels.quantize_rows_reference(kv)
    assert (got == right).all().item()
    assert emulated["quantize_rows"].n_calls == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_queries", [1, 5])
def test_ring_attention_over_nine_sessions_of_different_age(
    emulate: Emulate, dtype: mx.Dtype, n_queries: int
) -> None:
    emulated = emulate(options=Options(seed=1))
    check_q8(
        rings(
            dtype,
            heads=4,
            kv_heads=2,
            head_dim=32,
            n_queries=n_queries,
            capacity=64,
            window=64 - n_queries + 1,
            n_written=[max(n, n_queries) for n in NINE_AGES],
        )
    )
    assert emulated["ring_attention_q8"].n_calls == 1


@pytest.mark.parametrize(
    ("n_written", "capacity"),
    [
        ([1], 8192),
        ([1023], 8192),
        ([1024], 8192),
        ([8192], 8192),
        ([13000], 8192),
        ([1024], 1024),
        ([700, 8191, 20000], 8192),
    ],
)
def test_ring_attention_at_real_lengths(
    emulate: Emulate, n_written: list[int], capacity: int
) -> None:
    emulated = emulate(checks=False)
    check_q8(
        rings(
            mx.bfloat16,
            heads=4,
            kv_heads=1,
            head_dim=128,
            n_queries=1,
            capacity=capacity,
            window=capacity,
            n_written=n_written,
        )
    )
    assert emulated["ring_attention_q8"].n_copies == 0


@pytest.mark.parametrize("n_queries", [2, 4, 7, 16])
def test_ring_attention_verifies_several_queries_at_once(
    emulate: Emulate, n_queries: int
) -> None:
    emulated = emulate(checks=False)
    check_q8(
        rings(
            mx.float16,
            heads=4,
            kv_heads=1,
            head_dim=128,
            n_queries=n_queries,
            capacity=300,
            window=280,
            n_written=[n_queries, 299, 1234],
        )
    )
    assert emulated["ring_attention_q8"].n_calls == 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_queries", [1, 4])
@pytest.mark.parametrize("n_written", [[1], [1023], [1024], [8192], [9000, 8, 8191]])
def test_ring_attention_at_the_full_model_shape(
    emulate: Emulate, dtype: mx.Dtype, n_queries: int, n_written: list[int]
) -> None:
    emulate(options=Options(seed=2))
    check_q8(
        rings(
            dtype,
            heads=32,
            kv_heads=8,
            head_dim=128,
            n_queries=n_queries,
            capacity=8192 + n_queries - 1,
            window=8192,
            n_written=[max(n, n_queries) for n in n_written],
        )
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_window_attention_over_nine_sessions_of_different_age(
    emulate: Emulate, dtype: mx.Dtype
) -> None:
    emulated = emulate(options=Options(seed=3))
    check_window(
        entries(
            dtype,
            heads=2,
            kv_heads=2,
            head_dim=32,
            n_queries=4,
            capacity=64,
            window=60,
            n_written=[4 * (n // 4) for n in NINE_AGES],
        )
    )
    assert emulated["window_attention"].n_calls == 1


@pytest.mark.parametrize(
    ("n_queries", "n_written", "window"),
    [
        (2, [0], 750),
        (4, [0], 750),
        (4, [744], 750),
        (4, [752], 750),
        (4, [756], 750),
        (4, [4, 756, 100_000], 750),
        (7, [2000], 749),
        (6, [800], 3),  # a window smaller than the step
        (16, [0, 770], 700),
    ],
)
def test_window_attention_at_real_lengths(
    emulate: Emulate, n_queries: int, n_written: list[int], window: int
) -> None:
    emulated = emulate(checks=False)
    check_window(
        entries(
            mx.bfloat16,
            heads=2,
            kv_heads=2,
            head_dim=64,
            n_queries=n_queries,
            capacity=756,
            window=window,
            n_written=n_written,
        )
    )
    assert emulated["window_attention"].n_copies == 0


def test_window_attention_lets_heads_share_keys(emulate: Emulate) -> None:
    emulate()
    check_window(
        entries(
            mx.float32,
            heads=8,
            kv_heads=2,
            head_dim=128,
            n_queries=3,
            capacity=40,
            window=33,
            n_written=[37, 100],
            has_bias=False,
        )
    )


def test_window_attention_of_half_as_many_queries_at_once(
    emulate: Emulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulate()
    monkeypatch.setattr(metal, "queries_per_read", lambda: 2)
    check_window(
        entries(
            mx.float16,
            heads=2,
            kv_heads=2,
            head_dim=64,
            n_queries=4,
            capacity=40,
            window=33,
            n_written=[0, 100],
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_written", [[0], [756], [1000, 8, 754]])
def test_window_attention_at_the_full_model_shape(
    emulate: Emulate, dtype: mx.Dtype, n_written: list[int]
) -> None:
    emulate(options=Options(seed=4))
    check_window(
        entries(
            dtype,
            heads=32,
            kv_heads=32,
            head_dim=64,
            n_queries=4,
            capacity=756,
            window=750,
            n_written=n_written,
        )
    )
