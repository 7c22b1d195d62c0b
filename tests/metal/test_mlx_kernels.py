"""The emulator is right about kernels that are not ours: MLX's own, from its wheel."""

import ctypes
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.metal.emulator.dispatch import Buffer, Options, Size, dispatch
from tests.metal.emulator.source import MLX_HEADERS, Program, translate
from tests.metal.emulator.toolchain import toolchain

pytestmark = pytest.mark.usefixtures("compiler")

FOLDER = "mlx/backend/metal/kernels"


def mlx_kernel(header: str, name: str, template: str, *includes: str) -> Program:
    """A kernel of MLX's, unmodified."""
    source = (MLX_HEADERS / FOLDER / header).read_text(encoding="utf-8")
    prelude = "".join(f'#include "{FOLDER}/{path}"\n' for path in includes)
    return translate(
        source.replace("#pragma once", ""),
        name=name,
        template=template,
        prelude=prelude,
    )


def run(
    program: Program,
    inputs: dict[str, Any],
    out: np.ndarray,
    grid: Size,
    threadgroup: Size,
    constants: dict[int, Any] | None = None,
) -> None:
    """Fill `out`; a parameter that `inputs` do not name gets nothing worth reading."""
    buffers: list[Buffer] = []
    for name in program.buffer_names():
        if name in ("out", "y"):
            buffers.append(Buffer(name, out, is_output=True))
        else:
            buffers.append(Buffer(name, np.asarray(inputs.get(name, np.zeros(1)))))
    library = toolchain().library(program.text)
    dispatch(library, buffers, grid, threadgroup, Options(seed=1), constants)


@pytest.mark.parametrize("n_keys", [1, 1023, 1024])
def test_attention_of_one_query_over_grouped_heads(n_keys: int) -> None:
    H, Hk, D = 8, 2, 128
    rng = np.random.default_rng(n_keys)
    q, k, v = (
        rng.standard_normal((1, heads, n, D)).astype(np.float32)
        for heads, n in ((H, 1), (Hk, n_keys), (Hk, n_keys))
    )
    program = mlx_kernel("sdpa_vector.h", "sdpa_vector", "<float, 128>", "utils.h")
    out = np.full_like(q, np.nan)
    run(
        program,
        {
            "queries": q,
            "keys": k,
            "values": v,
            "gqa_factor": np.int32(H // Hk),
            "N": np.int32(n_keys),
            "k_head_stride": np.uint64(n_keys * D),
            "k_seq_stride": np.uint64(D),
            "v_head_stride": np.uint64(n_keys * D),
            "v_seq_stride": np.uint64(D),
            "scale": np.float32(D**-0.5),
        },
        out,
        (H * 1024, 1, 1),
        (1024, 1, 1),
        {number: ctypes.c_bool(False) for number in range(20, 26)},
    )
    right = mx.fast.scaled_dot_product_attention(
        mx.array(q), mx.array(k), mx.array(v), scale=D**-0.5
    )
    # Weights sum to one; a thousand products in float32 in another order.
    np.testing.assert_allclose(out, np.array(right), rtol=0, atol=2e-6)


def test_a_product_with_4_bit_weights() -> None:
    n_in, n_out = 1024, 64
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, n_in)).astype(np.float32)
    dense = mx.array(rng.standard_normal((n_out, n_in)).astype(np.float32))
    w, scales, biases = mx.quantize(dense, group_size=64, bits=4)
    program = mlx_kernel(
        "quantized.h",
        "affine_qmv_fast",
        "<float, 64, 4, false>",
        "utils.h",
        "steel/gemm/gemm.h",
        "quantized_utils.h",
    )
    out = np.full((1, n_out), np.nan, np.float32)
    run(
        program,
        {
            "w": np.array(w),
            "scales": np.array(scales),
            "biases": np.array(biases),
            "x": x,
            "in_vec_size": np.int32(n_in),
            "out_vec_size": np.int32(n_out),
        },
        out,
        (32, 2 * n_out // 8, 1),
        (32, 2, 1),
    )
    right = mx.quantized_matmul(mx.array(x), w, scales, biases, group_size=64, bits=4)
    # Sums of a thousand products of the order of one.
    np.testing.assert_allclose(out, np.array(right), rtol=0, atol=1e-4)
