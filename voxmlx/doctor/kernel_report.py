"""Every kernel's error and time on this machine, against what MLX has."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx

from voxmlx.config import ModelConfig
from voxmlx.doctor.estimate import median_s
from voxmlx.kernels.cases import cases
from voxmlx.kernels.check import run_case
from voxmlx.kernels.switches import (
    COMPILED,
    NAMES,
    STOCK_ATTENTION,
    STOCK_PRODUCT,
    KernelSwitches,
)

__all__ = ["KernelReport", "TimedCase", "measure_kernels"]


@dataclass(frozen=True, slots=True)
class TimedCase:
    """One case: its finding, and milliseconds beside those of MLX's operations."""

    label: str
    error: float | None
    limit: float
    fault: str | None
    ms: float | None
    stock_ms: float | None


@dataclass(frozen=True, slots=True)
class KernelReport:
    """State of a kernel: the results of its cases, and in `off` why it does not run."""

    name: str
    off: str | None
    results: list[TimedCase]


def measure_kernels(
    config: ModelConfig, dtype: mx.Dtype, switches: KernelSwitches, *, has_metal: bool
) -> list[KernelReport]:
    """Try all kernels, also those that are switched off; without Metal, MLX's own."""
    names = [*NAMES, STOCK_ATTENTION]
    if has_metal:
        names += [STOCK_PRODUCT, *COMPILED]
    results: dict[str, list[TimedCase]] = {name: [] for name in names}
    for name, timed in _timed_cases(config, dtype, has_metal=has_metal):
        results[name].append(timed)
    return [
        KernelReport(name, switches.why_off(name), tried)
        for name, tried in results.items()
    ]


def _timed_cases(
    config: ModelConfig, dtype: mx.Dtype, *, has_metal: bool
) -> Iterator[tuple[str, TimedCase]]:
    for case in cases(config, dtype, kv_bits=8):
        if not has_metal and case.kernel != STOCK_ATTENTION:
            continue
        # A CPU takes its time, and no kernel of ours could run in its stead.
        found = run_case(case) if has_metal else run_case(case, slowest_s=math.inf)
        ms = stock_ms = None
        if found.error is not None:
            ms = median_s(case.run) * 1000
            if case.stock is not None:
                stock_ms = median_s(case.stock) * 1000
        yield (
            case.kernel,
            TimedCase(case.label, found.error, found.limit, found.fault, ms, stock_ms),
        )
