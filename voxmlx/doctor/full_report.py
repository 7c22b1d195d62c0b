"""One file with everything that this project wants to know of a Mac."""

import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx.checkpoint import Checkpoint
from voxmlx.config import AUDIO_TOKEN_MS, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.decoding.loop import greedy_ids
from voxmlx.doctor.estimate import N_LAUNCHES
from voxmlx.doctor.report import Report
from voxmlx.kernels import kernel_switches
from voxmlx.kernels.switches import COMPILED_LAYERS
from voxmlx.memory import MemoryLimits, peak_bytes

__all__ = ["FORMAT", "MeasuredSteps", "full_report", "measured_steps", "power_source"]

FORMAT = 1
"""Number of the file's format; it grows when a key changes its meaning."""

_N_WARM_UP = 10
_PACED_S = AUDIO_TOKEN_MS / 1000


@dataclass(frozen=True, slots=True)
class MeasuredSteps:
    """Milliseconds of single steps, each with 80 ms of sound.

    `is_paced`: a step begins every 80 ms, as in a live stream; otherwise at once.
    `is_full`: both windows are full, as after eleven minutes. Real time is 12.5 tokens
    a second; `n_late` steps took longer than their sound.
    """

    is_paced: bool
    is_full: bool
    kv_bits: int
    n_steps: int
    median_ms: float
    p95_ms: float
    p99_ms: float
    longest_ms: float
    tokens_per_s: float
    n_late: int


def measured_steps(
    checkpoint: Checkpoint,
    n_steps: int,
    *,
    kv_bits: int,
    is_paced: bool,
    is_full: bool,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> MeasuredSteps:
    """Time `n_steps` steps of one stream; those before, which compile, do not count."""
    model = checkpoint.model
    state = model.open_state(checkpoint.delay_ms, kv_bits=kv_bits)
    if is_full:
        state.encoder.cache.fill()
        state.decoder.cache.fill()
    rng = np.random.default_rng(0)
    taken: list[float] = []
    due = clock()
    for _ in range(_N_WARM_UP + n_steps):
        sound = rng.normal(0, 0.05, (1, SAMPLES_PER_AUDIO_TOKEN)).astype(np.float32)
        if is_paced:
            due += _PACED_S
            sleep(max(0.0, due - clock()))
        start = clock()
        greedy_ids(model, sound, state)
        mx.synchronize()
        taken.append(1000 * (clock() - start))
    steady = taken[_N_WARM_UP:]
    percentiles = quantiles(steady, n=100, method="inclusive")
    return MeasuredSteps(
        is_paced=is_paced,
        is_full=is_full,
        kv_bits=kv_bits,
        n_steps=n_steps,
        median_ms=median(steady),
        p95_ms=percentiles[94],
        p99_ms=percentiles[98],
        longest_ms=max(steady),
        tokens_per_s=1000 * n_steps / sum(steady),
        n_late=sum(ms > AUDIO_TOKEN_MS for ms in steady),
    )


def full_report(
    report: Report,
    checkpoint: Checkpoint,
    limits: MemoryLimits | None,
    *,
    kv_bits: int,
    n_steps: int,
) -> dict[str, Any]:
    """Return the content of the file: the report, and what only a model can tell."""
    steps = [
        measured_steps(
            checkpoint, n_steps, kv_bits=kv_bits, is_paced=is_paced, is_full=is_full
        )
        for is_paced in (False, True)
        for is_full in (False, True)
    ]
    return {
        "format": FORMAT,
        "model": report.steps.model if report.steps is not None else None,
        "dtype_of_model": checkpoint.dtype,
        "embedding_bits_at_load": checkpoint.embedding_bits,
        "power": power_source(),
        "memory": _memory(limits),
        "launches_of_the_full_model": N_LAUNCHES[kv_bits],
        "compiled_layers": kernel_switches().is_on(COMPILED_LAYERS),
        "measured_steps": [asdict(one) for one in steps],
        **report.as_json(),
    }


def _memory(limits: MemoryLimits | None) -> dict[str, int | None]:
    """Bytes that MLX has, has had at most and keeps, and that the process had at most."""
    return {
        "active_bytes": mx.get_active_memory(),
        "peak_bytes": mx.get_peak_memory(),
        "cache_bytes": mx.get_cache_memory(),
        "wired_limit_bytes": None if limits is None else limits.wired_bytes,
        "cache_limit_bytes": None if limits is None else limits.cache_bytes,
        "process_peak_bytes": peak_bytes(),
    }


def power_source(root: Path = Path("/sys/class/power_supply")) -> str:
    """Return "AC Power" or "Battery Power", as macOS says it; else "unknown"."""
    if platform.system() == "Darwin":
        try:
            command = ["/usr/bin/pmset", "-g", "batt"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return "unknown"
        return power_of(done.stdout)
    for path in sorted(root.glob("*/online")):
        if path.read_text(encoding="utf-8").strip() == "1":
            return "AC Power"
    batteries = any(root.glob("BAT*"))
    return "Battery Power" if batteries else "unknown"


def power_of(page: str) -> str:
    """Return the source that `pmset -g batt` names: Now drawing from 'AC Power'."""
    _, _, rest = page.partition("drawing from '")
    return rest.partition("'")[0] or "unknown"
