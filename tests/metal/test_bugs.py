"""Seeded bugs are caught, and nothing is found where there is none."""

import mlx.core as mx
import numpy as np
import pytest

from tests.metal.bugs import BUGS, Bug
from tests.metal.conftest import Emulate, Emulated
from tests.metal.emulator.dispatch import Options, run_under
from tests.metal.emulator.source import MetalError
from tests.metal.emulator.toolchain import SANITIZERS, toolchain
from tests.metal.streams import entries, error_bounds, normal, rings
from voxmlx import kernels
from voxmlx.kernels.launch import MetalKernel

LEAST = 30


def is_norm_right(dtype: mx.Dtype) -> bool:
    """Two streams with weights of their own; rows that no threadgroup divides."""
    rng = np.random.default_rng(0)
    x, residual = (normal(rng, 2, 3, 300, dtype=dtype) for _ in range(2))
    weight, bias = normal(rng, 2, 300, dtype=dtype), normal(rng, 300, dtype=dtype)
    got = kernels.add_rms_norm(x, residual, weight, 0.01, bias)
    right = kernels.add_rms_norm_reference(x, residual, weight, 0.01, bias)
    return all(
        mx.allclose(a.astype(mx.float32), b.astype(mx.float32), 1e-2, 1e-5).item()
        if dtype == mx.bfloat16
        else mx.allclose(a, b, 4e-6, 1e-6).item()
        for a, b in zip(got, right, strict=True)
    )


def are_rows_right(dtype: mx.Dtype) -> bool:
    rng = np.random.default_rng(1)
    kv = normal(rng, 2, 4, 3, 64, dtype=dtype)
    kv[0, 0, 0] = 0
    got = kernels.quantize_rows(kv)
    return bool((got == kernels.quantize_rows_reference(kv)).all().item())


def is_ring_right(dtype: mx.Dtype) -> bool:
    """Two streams, one of them wrapped; queries that lie in two tiles."""
    r = rings(
        dtype,
        heads=4,
        kv_heads=2,
        head_dim=64,
        n_queries=5,
        capacity=40,
        window=30,
        n_written=[9, 107],
    )
    rows = kernels.quantize_rows_reference(mx.concatenate([r.keys, r.values], axis=1))
    got = kernels.ring_attention_q8(r.queries, rows, r.meta, r.scale)
    wide = r.queries.astype(mx.float32)
    exact = kernels.ring_attention_q8_reference(wide, rows, r.meta, r.scale)
    return is_within(got, exact, dtype)


def is_window_right(dtype: mx.Dtype) -> bool:
    e = entries(
        dtype,
        heads=4,
        kv_heads=2,
        head_dim=64,
        n_queries=5,
        capacity=40,
        window=30,
        n_written=[4, 102],
    )
    got = kernels.window_attention(*e.arguments())
    right = kernels.window_attention_reference(*e.arguments())
    return all(
        mx.allclose(a.astype(mx.float32), b.astype(mx.float32), 1e-2, 2e-2).item()
        if dtype == mx.bfloat16
        else mx.allclose(a, b, 4e-6, 4e-6).item()
        for a, b in zip(got, right, strict=True)
    )


def is_within(got: mx.array, exact: mx.array, dtype: mx.Dtype) -> bool:
    error = mx.abs(got.astype(mx.float32) - exact)
    return bool((error <= error_bounds(exact, dtype)).all().item())


IS_RIGHT = {
    "add_rms_norm": is_norm_right,
    "quantize_rows": are_rows_right,
    "ring_attention_q8": is_ring_right,
    "ring_combine": is_ring_right,
    "window_attention": is_window_right,
}


def under(sanitizer: str, emulated: Emulated, name: str) -> None:
    """Run the kernel's last launch once more, under a sanitizer."""
    job = emulated[name].last_job
    assert job is not None
    run_under(
        sanitizer,
        job.program.text,
        job.buffers,
        job.grid,
        job.threadgroup,
        Options(seed=3),
    )


def caught(bug: Bug, emulate: Emulate) -> str:
    """What noticed the bug; "" if nothing did."""

    def body(kernel: MetalKernel) -> str:
        text = kernel.body()
        return bug.seeded(text) if kernel.name == bug.kernel else text

    is_linted = bug.needs == "lint"
    # What a sanitizer is there for may do anything in this process.
    emulated = emulate(options=Options(seed=1), body=body, runs=not bug.needs)
    try:
        is_right = IS_RIGHT[bug.kernel](mx.bfloat16 if is_linted else mx.float32)
        if is_linted:
            (program,) = emulated[bug.kernel].programs()
            return " ".join(toolchain().lint(program.text))
        if bug.needs:
            under(bug.needs, emulated, bug.kernel)
            return ""
    except MetalError as error:
        return str(error)
    return "" if is_right else "a wrong result"


QUICK = [bug for bug in BUGS if bug.is_quick]


@pytest.mark.parametrize("bug", QUICK, ids=lambda bug: bug.what)
def test_a_seeded_bug_is_caught(emulate: Emulate, bug: Bug) -> None:
    assert caught(bug, emulate)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bug", [bug for bug in BUGS if not bug.is_quick], ids=lambda bug: bug.what
)
def test_every_other_seeded_bug_is_caught(emulate: Emulate, bug: Bug) -> None:
    assert caught(bug, emulate)


def test_there_are_bugs_of_every_kind_and_all_can_still_be_seeded() -> None:
    assert len(BUGS) >= LEAST
    assert len({bug.what for bug in BUGS}) == len(BUGS)
    assert {bug.kernel for bug in BUGS} == set(IS_RIGHT)
    assert {bug.needs for bug in BUGS} == {"", "lint", *SANITIZERS}
    by_name = {
        kernel.name: kernel.body()
        for kernel in (MetalKernel(name, (), ()) for name in IS_RIGHT)
    }
    for bug in BUGS:
        assert bug.seeded(by_name[bug.kernel]) != by_name[bug.kernel]


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("name", IS_RIGHT)
def test_no_sanitizer_finds_anything_in_a_kernel_as_it_is(
    emulate: Emulate, sanitizer: str, name: str
) -> None:
    emulated = emulate(options=Options(seed=1))
    assert IS_RIGHT[name](mx.float32)
    under(sanitizer, emulated, name)
