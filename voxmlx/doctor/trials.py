"""Every kernel's error and time on this machine, against what MLX has."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx

from voxmlx.config import ModelConfig
from voxmlx.doctor.realtime import median_s
from voxmlx.kernels.cases import cases
from voxmlx.kernels.check import judged
from voxmlx.kernels.gate import NAMES, STOCK_ATTENTION, Gate

__all__ = ["KernelReport", "Trial", "try_kernels"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One case: its finding, and milliseconds beside those of MLX's operations."""

    label: str
    error: float | None
    limit: float
    fault: str | None
    ms: float | None
    stock_ms: float | None


@dataclass(frozen=True, slots=True)
class KernelReport:
    """Whether a kernel runs (`off` says why not) and how its trials went."""

    name: str
    off: str | None
    trials: list[Trial]


def try_kernels(
    config: ModelConfig, dtype: mx.Dtype, gate: Gate, *, has_metal: bool
) -> list[KernelReport]:
    """Try all kernels, also those that are switched off; without Metal, MLX's own."""
    trials: dict[str, list[Trial]] = {name: [] for name in (*NAMES, STOCK_ATTENTION)}
    for name, trial in _trials(config, dtype, has_metal=has_metal):
        trials[name].append(trial)
    return [
        KernelReport(name, gate.why_off(name), tried) for name, tried in trials.items()
    ]


def _trials(
    config: ModelConfig, dtype: mx.Dtype, *, has_metal: bool
) -> Iterator[tuple[str, Trial]]:
    for case in cases(config, dtype, kv_bits=8):
        if not has_metal and case.kernel != STOCK_ATTENTION:
            continue
        # A CPU takes its time, and no kernel of ours could run in its stead.
        found = judged(case) if has_metal else judged(case, slowest_s=math.inf)
        ms = stock_ms = None
        if found.error is not None:
            ms = median_s(case.run) * 1000
            if case.stock is not None:
                stock_ms = median_s(case.stock) * 1000
        yield (
            case.kernel,
            Trial(case.label, found.error, found.limit, found.fault, ms, stock_ms),
        )
