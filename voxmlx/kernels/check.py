"""Tries every kernel on this very machine, and switches off those that fail."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from voxmlx.config import ModelConfig
from voxmlx.kernels.cases import Case, cases
from voxmlx.kernels.switches import NAMES, KernelSwitches, kernel_switches

__all__ = ["CaseResult", "check_kernels", "run_case", "self_check"]

BUDGET_S = 0.8

# Milliseconds are usual at the full size, for a kernel that has been compiled.
_SLOWEST_S = 0.1

_LOG = logging.getLogger("voxmlx")


@dataclass(frozen=True, slots=True)
class CaseResult:
    """Result of a case; `fault` is None if it passed."""

    kernel: str
    label: str
    error: float | None
    limit: float
    took_s: float | None
    fault: str | None


_done: set[tuple[ModelConfig, str, int]] = set()


def self_check(config: ModelConfig, dtype: mx.Dtype, kv_bits: int) -> None:
    """Check what a model would use, once per process, if this machine has Metal.

    Takes less than a second. A kernel that fails does not run any more, and a line of
    the log `voxmlx` says so. Raises KernelError for a wrong VOXMLX_KERNELS.
    """
    chosen = kernel_switches()
    key = (config, str(dtype), kv_bits)
    if key in _done or not mx.metal.is_available():
        return
    _done.add(key)
    check_kernels(cases(config, dtype, kv_bits), chosen)


def check_kernels(
    chosen: Iterable[Case], switches: KernelSwitches, budget_s: float = BUDGET_S
) -> list[CaseResult]:
    """Judge cases of kernels that are on, until the budget is spent; switch off."""
    start = time.perf_counter()
    findings: list[CaseResult] = []
    for case in chosen:
        if not switches.is_on(case.kernel):
            continue
        if time.perf_counter() - start > budget_s:
            break
        finding = run_case(case)
        findings.append(finding)
        if finding.fault is not None:
            switches.switch_off(case.kernel, f"{finding.label}: {finding.fault}")
            kind = "Metal kernel" if case.kernel in NAMES else "MLX's"
            _LOG.warning(
                "voxmlx: warning: %s %s is off, and slower arithmetic runs instead "
                "(%s: %s); please report what python -m voxmlx.doctor prints",
                kind,
                case.kernel,
                finding.label,
                finding.fault,
            )
    return findings


def run_case(case: Case, slowest_s: float = _SLOWEST_S) -> CaseResult:
    """Run a case twice, compare with what is exact, and time the second."""
    error: float | None = None
    took_s: float | None = None
    fault: str | None = None
    try:
        computed(case.run)
        start = time.perf_counter()
        got = computed(case.run)
        took_s = time.perf_counter() - start
    except (RuntimeError, ValueError) as raised:  # what MLX raises
        fault = f"{type(raised).__name__}: {' '.join(str(raised).split())[:200]}"
    else:
        with mx.stream(mx.cpu):
            error = _error(got, computed(case.exact))
        if not error <= case.limit:  # NaN is not either
            fault = f"wrong by {error:.2g}, {case.limit:.2g} is allowed"
        elif took_s > slowest_s:
            fault = f"took {took_s * 1000:.0f} ms"
    return CaseResult(case.kernel, case.label, error, case.limit, took_s, fault)


def computed(run: Callable[[], Sequence[mx.array]]) -> Sequence[mx.array]:
    arrays = run()
    mx.eval(arrays)
    return arrays


def _error(got: Sequence[mx.array], exact: Sequence[mx.array]) -> float:
    """The largest difference, relative to the largest exact number of its array."""
    worst = 0.0
    for one, right in zip(got, exact, strict=True):
        if one.shape != right.shape:
            return float("inf")
        off = mx.abs(one.astype(mx.float32) - right).max() / mx.abs(right).max()
        value = off.item()
        assert isinstance(value, float)
        if not value <= worst:
            worst = value
    return worst
