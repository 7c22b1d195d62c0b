"""A kernel that fails on the machine itself is switched off, and says so once."""

import logging
import time
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
from voxmlx.kernels.switches import NAMES, STOCK_ATTENTION, KernelSwitches

RIGHT = mx.array([1.0, -2.0])

REFERENCES = {
    "add_rms_norm_metal": kernels.add_rms_norm_reference,
    "quantize_rows_metal": kernels.quantize_rows_reference,
    "ring_attention_q8_metal": kernels.ring_attention_q8_reference,
    "window_attention_metal": kernels.window_attention_reference,
}


def case(run: Callable[[], mx.array], name: str = "add_rms_norm") -> Case:
    return Case(name, "some size", 0.01, lambda: (run(),), lambda: (RIGHT,))


def raising() -> mx.array:
    raise RuntimeError("[metal::Device] Unable to build metal library\nfrom source")


def slow() -> mx.array:
    time.sleep(0.15)
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


def test_the_check_ends_when_its_time_is_spent() -> None:
    seconds = [case(lambda: (time.sleep(0.02), RIGHT)[1]) for _ in range(50)]
    start = time.perf_counter()
    assert len(check_kernels(seconds, KernelSwitches("on", None), budget_s=0.1)) < 10
    assert time.perf_counter() - start < 1


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16], ids=str)
def test_what_is_right_passes_every_case(
    tiny_checkpoint: Checkpoint, dtype: mx.Dtype
) -> None:
    some = cases(tiny_checkpoint.config, dtype, 8)
    assert {c.kernel for c in some} == {*NAMES, STOCK_ATTENTION}
    findings = check_kernels(some, KernelSwitches("on", None), budget_s=60)
    assert [f.fault for f in findings] == [None] * len(some)


@pytest.mark.usefixtures("working")
def test_kernels_that_16_bits_never_use_are_not_tried(
    tiny_checkpoint: Checkpoint,
) -> None:
    tried = {c.kernel for c in cases(tiny_checkpoint.config, mx.float32, 16)}
    assert tried == {"add_rms_norm", "window_attention", STOCK_ATTENTION}


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
    off = [n for n in (*NAMES, STOCK_ATTENTION) if not switches.is_on(n)]
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
    monkeypatch.setattr(check, "_done", set())
    checkpoints = [
        load(tiny_checkpoint_dir, "float32"),
        load(tiny_checkpoint_dir, "float32"),
    ]
    assert [ids(checkpoint) for checkpoint in checkpoints] == [right, right]
    assert len(caplog.messages) == 1
    assert switches.is_on("window_attention")
