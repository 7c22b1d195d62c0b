"""NumPy's products are MLX's, and a network that uses them gives the same logits."""

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from convert import model_reading, products
from tests.sounds import speech_like
from voxmlx import load
from voxmlx.kernels import kernel_switches
from voxmlx.kernels.switches import NUMPY
from voxmlx.model.linear import matmul


def test_a_gram_is_the_sum_over_all_inputs() -> None:
    x = np.random.default_rng(0).standard_normal((2, 30, 24)).astype(np.float32)
    parts = [mx.array(x[:, :7]), mx.array(x[:, 7:])]
    flat = x.reshape(-1, 24)
    np.testing.assert_allclose(
        products.gram(parts), flat.T @ flat, rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("is_quantized", [False, True])
def test_a_product_is_mlxs_without_the_bias(
    dtype: mx.Dtype, is_quantized: bool
) -> None:
    linear = nn.Linear(64, 12)
    linear.set_dtype(dtype)
    x = mx.random.normal((2, 5, 64)).astype(dtype)
    expected = linear(x) - linear.bias
    module = linear
    if is_quantized:
        module = linear.to_quantized(32, 8)
        expected = module(x) - linear.bias
    found = matmul(module, x)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == mx.float32 else 0.05
    np.testing.assert_allclose(
        found.astype(mx.float32), expected.astype(mx.float32), atol=tolerance
    )


@pytest.mark.skipif(mx.metal.is_available(), reason="a GPU multiplies by itself")
def test_a_network_that_numpy_multiplies_for_gives_the_same_logits(
    source: Path,
) -> None:
    checkpoint = load(source, "float32")
    model = checkpoint.model
    samples = np.pad(speech_like(64_000), (0, model.mel.lookahead))
    ids = np.arange(9, dtype=np.int32)
    before = np.concatenate(list(model_reading.forced_logits(checkpoint, samples, ids)))
    with kernel_switches().trying(NUMPY):
        found = list(model_reading.forced_logits(checkpoint, samples, ids))
    after = np.concatenate(found)
    assert (after != before).any()  # others have computed it
    np.testing.assert_allclose(after, before, atol=1e-4)
