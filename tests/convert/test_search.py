"""The search never does worse than `mx.quantize`, in the bytes that MLX reads."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert.affine import Rounded, next_stored, pack, packed, stored
from convert.search import search
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.recipes import DtypeName

BITS = (2, 3, 4, 5, 6, 8)
DTYPES: tuple[DtypeName, ...] = ("bfloat16", "float16", "float32")


def back(rounded: Rounded, precision: Precision, dtype: DtypeName) -> np.ndarray:
    """Weights as MLX reads them from the stored tensors, computed in float32."""
    parts = packed(rounded, precision.bits, dtype)
    assert parts.biases is not None
    assert parts.scales.dtype == parts.biases.dtype == getattr(mx, dtype)
    return dequantized(parts.weight, parts.scales, parts.biases, precision)


def dequantized(
    codes: mx.array, scales: mx.array, biases: mx.array, precision: Precision
) -> np.ndarray:
    found = mx.dequantize(
        codes,
        scales.astype(mx.float32),
        biases.astype(mx.float32),
        group_size=precision.group_size,
        bits=precision.bits,
    )
    return np.array(found)


def nearest(rows: np.ndarray, precision: Precision, dtype: DtypeName) -> np.ndarray:
    codes, scales, biases = mx.quantize(
        mx.array(rows).astype(getattr(mx, dtype)),
        group_size=precision.group_size,
        bits=precision.bits,
    )
    return dequantized(codes, scales, biases, precision)


def squared(rows: np.ndarray, found: np.ndarray) -> float:
    return float(((rows.astype(np.float64) - found) ** 2).sum())


def bf16(rows: np.ndarray) -> np.ndarray:
    return np.array(mx.array(rows).astype(mx.bfloat16).astype(mx.float32))


@pytest.mark.parametrize("bits", BITS)
def test_packed_codes_are_those_that_mlx_reads(bits: int) -> None:
    codes = np.random.default_rng(0).integers(0, 2**bits, (7, 96), np.uint8)
    words = mx.array(pack(codes, bits))
    ones, zeros = mx.ones((7, 3)), mx.zeros((7, 3))
    found = mx.dequantize(words, ones, zeros, group_size=32, bits=bits)
    np.testing.assert_array_equal(np.array(found), codes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stored_numbers_are_those_of_mlx_and_have_neighbors(dtype: DtypeName) -> None:
    rng = np.random.default_rng(1)
    values = (rng.standard_normal(4000) * 10.0 ** rng.integers(-4, 3, 4000)).astype(
        "f4"
    )
    values = values[stored(values, dtype) != 0]
    found = stored(values, dtype)
    expected = mx.array(values).astype(getattr(mx, dtype)).astype(mx.float32)
    np.testing.assert_array_equal(found, np.array(expected))
    above, below = (next_stored(found, step, dtype) for step in (1, -1))
    np.testing.assert_array_equal(stored(above, dtype), above)
    assert (np.abs(above) > np.abs(found)).all()
    np.testing.assert_array_equal(next_stored(above, -1, dtype), found)
    assert (np.abs(below) < np.abs(found)).all()


@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize(
    ("bits", "most"), [(2, 0.7), (3, 0.8), (4, 0.85), (5, 0.87), (6, 0.87), (8, 0.62)]
)
def test_the_squared_error_is_less_by_a_share_that_depends_on_the_bits(
    bits: int, most: float, group_size: int
) -> None:
    precision = Precision(bits, group_size)
    for i, rows in enumerate(
        (
            np.random.default_rng(2).standard_normal((64, 384)),
            np.random.default_rng(3).standard_t(4, (64, 384)),
        )
    ):
        weights = bf16((rows * 0.02).astype(np.float32))
        found = back(search(weights, precision, "bfloat16"), precision, "bfloat16")
        before = squared(weights, nearest(weights, precision, "bfloat16"))
        assert squared(weights, found) < most * before, i


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from(BITS),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(-6, 3),
    kind=st.sampled_from(["normal", "heavy", "sparse", "shifted", "constant", "zero"]),
)
def test_no_group_is_ever_worse_than_what_mlx_makes_of_it(
    bits: int, dtype: DtypeName, seed: int, exponent: int, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((3, 64))
    if kind == "heavy":
        rows = rng.standard_t(2, (3, 64))
    elif kind == "sparse":
        rows *= rng.random((3, 64)) < 0.05
    elif kind == "shifted":
        rows += 30
    elif kind == "constant":
        rows = np.full((3, 64), rows[0, 0])
    elif kind == "zero":
        rows *= 0
    kept: mx.Dtype = getattr(mx, dtype)
    weights = mx.array((rows * 10.0**exponent).astype(np.float32)).astype(kept)
    floats = np.array(weights.astype(mx.float32))
    precision = Precision(bits, 64)
    found = back(search(floats, precision, dtype), precision, dtype)
    assert np.isfinite(found).all()
    for row, ours, theirs in zip(
        floats, found, nearest(floats, precision, dtype), strict=True
    ):
        # Sums of float32 are not exact.
        assert squared(row, ours) <= 1.0001 * squared(row, theirs) + 1e-13 * row @ row


def test_columns_that_matter_more_are_rounded_better() -> None:
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((64, 128)).astype(np.float32)
    weights = 10.0 ** rng.uniform(-2, 2, 128).astype(np.float32)
    precision = Precision(3, 64)

    def error(importance: np.ndarray | None) -> float:
        rounded = search(rows, precision, "float32", importance)
        off = back(rounded, precision, "float32") - rows
        return float((off**2 @ weights).sum())

    assert error(weights) < 0.7 * error(None)


def test_rows_do_not_depend_on_the_rows_beside_them() -> None:
    rows = np.random.default_rng(5).standard_normal((300, 192)).astype(np.float32)
    precision = Precision(4, 64)
    whole = search(rows, precision, "bfloat16")
    for part in (slice(0, 1), slice(17, 171)):
        found = search(np.ascontiguousarray(rows[part]), precision, "bfloat16")
        np.testing.assert_array_equal(found.codes, whole.codes[part])
        np.testing.assert_array_equal(found.scales, whole.scales[part])
        np.testing.assert_array_equal(found.biases, whole.biases[part])
