"""Weights that are no numbers are seen in every type."""

import math

import mlx.core as mx
import pytest

from voxmlx.layouts.finite import is_finite

DTYPES = [mx.float16, mx.bfloat16, mx.float32]
BAD = ["nan", "-nan", "inf", "-inf"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_and_smallest_numbers_are_finite(dtype: mx.Dtype) -> None:
    largest, tiny = mx.finfo(dtype).max, mx.finfo(dtype).min
    for array in (
        mx.array([[largest, -largest, tiny], [0.0, -0.0, 1.0]]),
        mx.array([-1.0]),
        mx.array([1.0]),
        mx.zeros((0, 4)),
    ):
        assert is_finite(array.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "bad", [math.nan, math.copysign(math.nan, -1), math.inf, -math.inf], ids=BAD
)
def test_one_that_is_not_is_found_anywhere(dtype: mx.Dtype, bad: float) -> None:
    for place in range(6):
        values = [-1.0, 2.0, 0.0, -0.0, 1e-5, -3.0]
        values[place] = bad
        array = mx.array(values).astype(dtype).reshape(2, 3)
        assert not is_finite(array)
        assert not is_finite(array.T)
        assert not is_finite(array[:, ::-1])


def test_a_number_too_large_for_half_precision_is_not_finite_there() -> None:
    array = mx.array([1e6])
    assert is_finite(array)
    assert not is_finite(array.astype(mx.float16))
