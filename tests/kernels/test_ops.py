"""Kernels are chosen for the sizes they are good for."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.kernels import has_ring_attention_q8, has_window_attention, ops
from voxmlx.kernels.switches import KernelSwitches


@pytest.mark.parametrize(
    ("n_queries", "head_dim", "capacity", "window", "ring"),
    [
        (4, 64, 756, True, True),  # the encoder's common step
        (1, 128, 8192, False, True),  # the decoder's: one query is stock attention's
        (4, 128, 8192, False, True),  # several, over a ring for many threadgroups
        (16, 64, 1024, True, True),
        (17, 64, 756, False, False),  # a backlog: many queries share what is read
        (4, 80, 756, False, False),  # rows that lanes cannot share
        (4, 256, 756, False, False),  # more than a threadgroup has memory for
    ],
)
def test_a_kernel_runs_where_it_saves_something(
    monkeypatch: pytest.MonkeyPatch,
    n_queries: int,
    head_dim: int,
    capacity: int,
    window: bool,
    ring: bool,
) -> None:
    chosen = KernelSwitches("on", None)
    monkeypatch.setattr(ops, "kernel_switches", lambda: chosen)
    assert has_window_attention(n_queries, head_dim, capacity) == window
    assert has_ring_attention_q8(n_queries, head_dim) == ring
    none = KernelSwitches("off", None)
    monkeypatch.setattr(ops, "kernel_switches", lambda: none)
    assert not has_window_attention(n_queries, head_dim, capacity)
    assert not has_ring_attention_q8(n_queries, head_dim)


@pytest.mark.parametrize(
    ("has_metal", "dtype", "n_keys", "by_powers"),
    [
        (False, mx.float32, 756, True),
        (False, mx.float32, 60, False),  # too few weights to pay for more operations
        (False, mx.float16, 756, False),  # half precision would lose the maximum
        (True, mx.float32, 756, False),
    ],
)
def test_powers_of_two_attend_on_a_cpu_alone(
    monkeypatch: pytest.MonkeyPatch,
    has_metal: bool,
    dtype: mx.Dtype,
    n_keys: int,
    by_powers: bool,
) -> None:
    monkeypatch.setattr(ops, "has_metal", lambda: has_metal)
    used: list[bool] = []
    attend = ops.pow_attention

    def noted(*arguments: Any) -> mx.array:
        used.append(True)
        return attend(*arguments)

    monkeypatch.setattr(ops, "pow_attention", noted)
    x = mx.ones((1, 6, n_keys, 16), dtype)
    ops.attention(x[:, :, :4], x, x, None, 0.25)
    assert bool(used) == by_powers


@pytest.mark.parametrize("has_bias", [False, True])
def test_no_compiled_body_reads_backwards(
    monkeypatch: pytest.MonkeyPatch, has_bias: bool
) -> None:
    # MLX's compiled kernels count unsigned: a negative stride leaves the array.
    seen: list[mx.array] = []

    def look(self: ops.Fused, *arrays: mx.array) -> mx.array:
        seen.extend(arrays)
        return self.body(*arrays)

    monkeypatch.setattr(ops, "has_metal", lambda: True)
    monkeypatch.setattr(ops.Fused, "__call__", look)
    angles = np.exp(1j * np.ones((1, 4, 4, 1, 8))).astype(np.complex64)
    bias = mx.ones(4 * 2 * 16) if has_bias else None
    x = mx.ones((1, 4, 4 * 2 * 16))
    mx.eval(ops.rotate(x, ops.rotation(angles, 2), bias))
    mx.eval(ops.swiglu(x), ops.gelu(x))
    mx.eval(seen)
    assert len(seen) == (6 if has_bias else 4) + 2
    for array in seen:
        strides = np.array(array, copy=False).strides
        assert min(strides) >= 0
