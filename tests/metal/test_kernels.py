"""Every Metal kernel, executed, computes what its reference defines."""

import mlx.core as mx
import numpy as np
import pytest

from tests.metal.conftest import Emulate
from tests.metal.emulator.dispatch import Options
from tests.metal.streams import DTYPES, Rings, error_bounds, normal, rings
from voxmlx import kernels
from voxmlx.kernels.ring_reference import visible_slots

# Of a norm, relative: a unit in the last place, since results are rounded twice. In
# float32 it is the order in which up to 3072 squares are summed.
NORM_ERROR = {mx.float32: 2e-6, mx.float16: 2.0**-10, mx.bfloat16: 2.0**-7}

NINE_AGES = [1, 2, 39, 40, 41, 63, 64, 65, 1000]


def exact_attention(r: Rings, keys: mx.array, values: mx.array) -> mx.array:
    """Attention over rings in float64, rounded once.

    The reference in float32 is no measure of a kernel in float32: over 8192 keys a CPU
    that sums one after another is off by 5e-6, the kernel by 5e-7.
    """
    B, H, T, D = r.queries.shape
    q, k, v = (
        np.array(x.astype(mx.float32)).astype(np.float64)
        for x in (r.queries, keys, values)
    )
    n_kv_heads, capacity = k.shape[1:3]
    q = q.reshape(B, n_kv_heads, -1, T, D) * r.scale
    scores = q @ k[:, :, None].swapaxes(-1, -2)
    visible = np.array(visible_slots(r.meta, T, capacity))[:, :, None]
    scores = np.where(visible, scores, -np.inf)
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
    rows = kernels.quantize_rows_reference(r.keys, r.values)
    got = kernels.ring_attention_q8(r.queries, rows, r.meta, r.scale)
    keys, values = kernels.dequantize_rows(rows, mx.float32)
    assert_within(got, exact_attention(r, keys, values), r.queries.dtype)


def check_window(r: Rings) -> None:
    got = kernels.window_attention(r.queries, r.keys, r.values, r.meta, r.scale)
    assert_within(got, exact_attention(r, r.keys, r.values), r.queries.dtype)


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
    got = kernels.quantize_rows(keys.astype(dtype), values.astype(dtype))
    right = kernels.quantize_rows_reference(keys.astype(dtype), values.astype(dtype))
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
        rings(
            dtype,
            heads=2,
            kv_heads=2,
            head_dim=32,
            n_queries=4,
            capacity=64,
            window=61,
            n_written=[4 * -(-n // 4) for n in NINE_AGES],
        )
    )
    assert emulated["window_attention"].n_calls == 1


@pytest.mark.parametrize(
    ("n_queries", "n_written", "window"),
    [
        (2, [2], 750),
        (4, [4], 750),
        (4, [748], 750),
        (4, [756], 750),
        (4, [760], 750),
        (4, [4, 756, 100_000], 750),
        (7, [2000], 750),
        (6, [800], 3),  # a window smaller than the step
        (16, [16, 770], 700),
    ],
)
def test_window_attention_at_real_lengths(
    emulate: Emulate, n_queries: int, n_written: list[int], window: int
) -> None:
    emulated = emulate(checks=False)
    check_window(
        rings(
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
        rings(
            mx.float32,
            heads=8,
            kv_heads=2,
            head_dim=128,
            n_queries=3,
            capacity=40,
            window=33,
            n_written=[39, 100],
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n_written", [[4], [756], [1000, 8, 754]])
def test_window_attention_at_the_full_model_shape(
    emulate: Emulate, dtype: mx.Dtype, n_written: list[int]
) -> None:
    emulate(options=Options(seed=4))
    check_window(
        rings(
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
