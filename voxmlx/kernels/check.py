"""Tries every kernel on this very machine, and switches off those that fail."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from voxmlx.config import ModelConfig
from voxmlx.kernels.cases import Case, cases
from voxmlx.kernels.evaluation import evaluate
from voxmlx.kernels.switches import (
    COMPILED_LAYERS,
    NAMES,
    STOCK_PRODUCT,
    KernelSwitches,
    kernel_switches,
)

__all__ = ["CaseResult", "check_kernels", "checked", "run_case", "self_check"]

BUDGET_S = 0.8

# Milliseconds are usual at the full size, for a kernel that has been compiled.
_SLOWEST_S = 0.1
_N_TIMED = 3

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


checked: set[tuple[ModelConfig, str, int]] = set()
"""Sizes, dtypes and bits of rings whose kernels were tried."""


def self_check(config: ModelConfig, dtype: mx.Dtype, kv_bits: int) -> None:
    """Check what a model would use, once per process, if this machine has Metal.

    Takes less than a second where kernels have been compiled. A kernel runs once its
    first case has passed; for one that fails, slower arithmetic runs, and a line of the
    log `voxmlx` says so. Raises KernelError for a wrong VOXMLX_KERNELS.
    """
    chosen = kernel_switches()
    key = (config, str(dtype), kv_bits)
    if key in checked or not mx.metal.is_available():
        return
    checked.add(key)
    check_kernels(cases(config, dtype, kv_bits), chosen)


def check_kernels(
    chosen: Iterable[Case], switches: KernelSwitches, budget_s: float = BUDGET_S
) -> list[CaseResult]:
    """Judge cases of kernels that may run; trust a kernel or switch it off.

    The first case of each is run however long that takes: on a Mac that has just been
    started each is compiled. The others are run until the budget is spent.
    """
    start = time.perf_counter()
    findings: list[CaseResult] = []
    tried: set[str] = set()
    for case in chosen:
        if switches.why_off(case.kernel) is not None:
            continue
        if case.kernel in tried and time.perf_counter() - start > budget_s:
            continue
        tried.add(case.kernel)
        finding = run_case(case)
        findings.append(finding)
        if finding.fault is None:
            switches.trust(case.kernel)
            continue
        switches.switch_off(case.kernel, f"{finding.label}: {finding.fault}")
        if case.kernel == STOCK_PRODUCT:
            outcome = "MLX's quantized_matmul fails, and nothing can do its work"
        elif case.kernel == COMPILED_LAYERS:
            outcome = "compiled layers are off, and Python builds every step"
        else:
            kind = "Metal kernel" if case.kernel in NAMES else "MLX's"
            outcome = f"{kind} {case.kernel} is off, and slower arithmetic runs instead"
        _LOG.warning(
            "voxmlx: warning: %s (%s: %s); please report what python -m voxmlx.doctor "
            "prints",
            outcome,
            finding.label,
            finding.fault,
        )
    return findings


def run_case(case: Case, slowest_s: float = _SLOWEST_S) -> CaseResult:
    """Run a case, compare with what is exact, and time it.

    The first run does not count, nor do slow ones before a quick one. What is not our
    own is never too slow: something else on the machine may be why.
    """
    error: float | None = None
    took_s: float | None = None
    fault: str | None = None
    got: Sequence[mx.array] = ()
    try:
        computed(case.run)
        for _ in range(_N_TIMED):
            start = time.perf_counter()
            got = computed(case.run)
            seconds = time.perf_counter() - start
            took_s = seconds if took_s is None else min(took_s, seconds)
            if took_s <= slowest_s:
                break
    except (RuntimeError, ValueError) as raised:  # what MLX raises
        fault = f"{type(raised).__name__}: {' '.join(str(raised).split())[:200]}"
    else:
        with mx.stream(mx.cpu):
            error = _error(got, computed(case.exact))
        if not error <= case.limit:  # NaN is not either
            fault = f"wrong by {error:.2g}, {case.limit:.2g} is allowed"
        elif case.kernel in NAMES and took_s is not None and took_s > slowest_s:
            fault = f"took {took_s * 1000:.0f} ms"
    return CaseResult(case.kernel, case.label, error, case.limit, took_s, fault)


def computed(run: Callable[[], Sequence[mx.array]]) -> Sequence[mx.array]:
    arrays = run()
    evaluate(arrays)
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
