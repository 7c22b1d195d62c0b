"""A kernel that fails on the machine itself is switched off, and says so once."""

import logging
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from tests.sounds import speech_like
from voxmlx import Checkpoint, Session, TokenDecoded, kernels, load
from voxmlx.kernels import check, metal, ops
from voxmlx.kernels.cases import Case, cases
from voxmlx.kernels.check import check_kernels, run_case
from voxmlx.kernels.switches import (
    COMPILED,
    NAMES,
    STOCK_ATTENTION,
    STOCK_PRODUCT,
    KernelSwitches,
)

RIGHT = mx.array([1.0, -2.0])

REFERENCES = {
    "add_rms_norm_metal": kernels.add_rms_norm_reference,
    "quantize_rows_metal": kernels.quantize_rows_reference,
    "ring_attention_q8_metal": kernels.ring_attention_q8_reference,
    "window_attention_metal": kernels.window_attention_reference,
}


STOCK = (STOCK_ATTENTION, STOCK_PRODUCT)


def case(run: Callable[[], mx.array], name: str = "add_rms_norm") -> Case:
    return Case(name, "some size", 0.01, lambda: (run(),), lambda: (RIGHT,))


def raising() -> mx.array:
    raise RuntimeError("[metal::Device] Unable to build metal library\nfrom source")


class Clock:
    """Time that passes when somebody sleeps, and else stands still."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def _no_time_but_what_is_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine would make any case slow."""
    monkeypatch.setattr(check, "time", CLOCK)


def slow() -> mx.array:
    CLOCK.sleep(0.15)
    return RIGHT


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> None:
    """References stand in for the Metal kernels."""
    for name, reference in REFERENCES.items():
        monkeypatch.setattr(metal, name, reference)
        monkeypatch.setattr(ops, name, reference)


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        (lambda: RIGHT + 0.01, None),
        (lambda: RIGHT + 0.03, "wrong by 0.015, 0.01 is allowed"),
        (lambda: RIGHT * mx.nan, "wrong by nan, 0.01 is allowed"),
        (lambda: RIGHT[:1], "wrong by inf, 0.01 is allowed"),
        (raising, "RuntimeError: [metal::Device] Unable to build metal library from"),
        (slow, "took 15"),
    ],
)
def test_a_case_is_judged_by_its_error_and_its_time(
    run: Callable[[], mx.array], fault: str | None
) -> None:
    found = run_case(case(run)).fault
    assert found is None if fault is None else (found or "").startswith(fault)


def test_a_failing_kernel_is_off_after_one_line_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    switches = KernelSwitches("on", None)
    wrong = case(lambda: RIGHT * 2)
    right = case(lambda: RIGHT, "window_attention")
    with caplog.at_level(logging.WARNING, "voxmlx"):
        findings = check_kernels([wrong, wrong, right], switches)
    assert [name for name in NAMES if not switches.is_on(name)] == ["add_rms_norm"]
    assert [f.kernel for f in findings] == ["add_rms_norm", "window_attention"]
    (line,) = caplog.messages
    assert "\n" not in line
    assert "Metal kernel add_rms_norm is off" in line
    assert "some size: wrong by 1, 0.01 is allowed" in line
    assert "python -m voxmlx.doctor" in line
    assert switches.why_off("add_rms_norm") == "some size: wrong by 1, 0.01 is allowed"


def test_kernels_that_are_off_are_not_tried() -> None:
    assert check_kernels([case(raising)], KernelSwitches("off", None)) == []
    assert check_kernels([case(raising)], KernelSwitches("on", "no Metal device")) == []


def test_no_kernel_runs_before_its_first_case_has_passed() -> None:
    switches = KernelSwitches("on", None, are_tried=False)
    assert not any(switches.is_on(name) for name in NAMES)
    good, bad = case(lambda: RIGHT, "window_attention"), case(lambda: RIGHT * 2)
    check_kernels([good, bad], switches)
    assert [name for name in NAMES if switches.is_on(name)] == ["window_attention"]
    # What nobody tried stays off, and has no reason that a bug report should name.
    assert switches.why_off("quantize_rows") is None
    assert switches.is_on(STOCK_ATTENTION)


def test_every_kernel_is_tried_once_however_long_compiling_takes() -> None:
    switches = KernelSwitches("on", None, are_tried=False)
    some = [case(lambda: (CLOCK.sleep(0.02), RIGHT)[1], name) for name in NAMES]
    again = [case(raising, name) for name in NAMES]
    assert len(check_kernels([*some, *again], switches, budget_s=0.0)) == len(NAMES)
    assert all(switches.is_on(name) for name in NAMES)


@pytest.mark.parametrize("name", [STOCK_ATTENTION, STOCK_PRODUCT, *COMPILED])
def test_what_is_not_our_own_is_never_too_slow(name: str) -> None:
    assert run_case(case(slow, name)).fault is None


def test_one_slow_run_is_not_the_kernels_fault() -> None:
    delays = iter([0.0, 0.15, 0.0])

    def run() -> mx.array:
        CLOCK.sleep(next(delays))
        return RIGHT

    assert run_case(case(run)).fault is None


def test_a_body_that_mlx_compiles_wrong_runs_operation_by_operation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switches = KernelSwitches("on", None)
    monkeypatch.setattr(ops, "kernel_switches", lambda: switches)
    monkeypatch.setattr(ops, "has_metal", lambda: True)
    monkeypatch.setattr(ops.swiglu, "compiled", lambda x: x * 0)
    x = mx.array([[1.0, 2.0, 3.0, 4.0]])
    assert (ops.swiglu(x) == 0).all().item()
    check_kernels([case(lambda: ops.swiglu(x), "swiglu")], switches)
    assert (ops.swiglu(x) == kernels.swiglu_reference(x)).all().item()


def test_a_product_that_fails_is_told_though_nothing_can_replace_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "voxmlx"):
        wrong = case(lambda: RIGHT * 2, STOCK_PRODUCT)
        check_kernels([wrong], KernelSwitches("on", None))
    (line,) = caplog.messages
    assert "quantized_matmul fails" in line


def test_the_check_ends_when_its_time_is_spent() -> None:
    seconds = [case(lambda: (CLOCK.sleep(0.02), RIGHT)[1]) for _ in range(50)]
    start = CLOCK.now
    assert len(check_kernels(seconds, KernelSwitches("on", None), budget_s=0.1)) < 10
    assert CLOCK.now - start < 1


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
def test_what_is_right_passes_every_case(
    tiny_checkpoint: Checkpoint, dtype: mx.Dtype
) -> None:
    some = cases(tiny_checkpoint.config, dtype, 8)
    assert {c.kernel for c in some} == {*NAMES, *COMPILED, *STOCK}
    findings = check_kernels(some, KernelSwitches("on", None), budget_s=60)
    assert [f.fault for f in findings] == [None] * len(some)


@pytest.mark.usefixtures("working")
def test_kernels_that_16_bits_never_use_are_not_tried(
    tiny_checkpoint: Checkpoint,
) -> None:
    tried = {c.kernel for c in cases(tiny_checkpoint.config, mx.float32, 16)}
    assert tried == {"add_rms_norm", "window_attention", *COMPILED, *STOCK}


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("name", sorted(REFERENCES))
@pytest.mark.parametrize("fault", ["half", "zeros", "raises"])
def test_a_fault_of_one_kernel_is_found_at_a_models_sizes(
    tiny_checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    fault: str,
) -> None:
    def faulty(*inputs):
        if fault == "raises":
            raise ValueError("[metal_kernel] no")
        found = REFERENCES[name](*inputs)
        factor = {"half": 2, "zeros": 0}[fault]
        if isinstance(found, tuple):
            return tuple(f * factor for f in found)
        return (found * factor).astype(found.dtype)

    monkeypatch.setattr(metal, name, faulty)
    switches = KernelSwitches("on", None)
    check_kernels(cases(tiny_checkpoint.config, mx.float32, 8), switches, budget_s=60)
    off = [n for n in (*NAMES, *COMPILED, *STOCK) if not switches.is_on(n)]
    assert off == [name.removesuffix("_metal")]


def test_attention_does_without_mlxs_own_where_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    switches = KernelSwitches("on", None)
    switches.switch_off(STOCK_ATTENTION, "wrong")
    monkeypatch.setattr(ops, "kernel_switches", lambda: switches)

    def broken(*_: object, **__: object) -> mx.array:
        raise AssertionError

    monkeypatch.setattr(mx.fast, STOCK_ATTENTION, broken)
    x = mx.random.normal((1, 2, 3, 8))
    got = kernels.attention(x, x, x, None, 0.3)
    right = kernels.attention_reference(x, x, x, None, 0.3)
    assert (got == right).all().item()


def ids(checkpoint: Checkpoint) -> list[int]:
    session = Session(checkpoint, kv_bits=8)
    events = session.push(speech_like(32_000, seed=2)) + session.finish()
    return [event.token_id for event in events if isinstance(event, TokenDecoded)]


@pytest.mark.usefixtures("working")
def test_loading_on_a_mac_checks_kernels_and_does_without_a_broken_one(
    tiny_checkpoint_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = ids(load(tiny_checkpoint_dir, "float32"))
    assert caplog.messages == []

    def noise(queries: mx.array, *_: object) -> mx.array:
        return mx.array(np.full(queries.shape, 7, np.float32))

    switches = KernelSwitches("on", None)
    for module in (check, ops):
        monkeypatch.setattr(module, "kernel_switches", lambda: switches)
    for module in (metal, ops):
        monkeypatch.setattr(module, "ring_attention_q8_metal", noise)
    monkeypatch.setattr(ops, "has_metal", lambda: False)
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(check, "checked", set())
    checkpoints = [
        load(tiny_checkpoint_dir, "float32"),
        load(tiny_checkpoint_dir, "float32"),
    ]
    assert [ids(checkpoint) for checkpoint in checkpoints] == [right, right]
    assert len(caplog.messages) == 1
    assert switches.is_on("window_attention")
