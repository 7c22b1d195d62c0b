"""The findings of the doctor, as one page of text."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from voxmlx.config import AUDIO_TOKEN_MS
from voxmlx.doctor.chips import chip_of
from voxmlx.doctor.estimate import RealTimeEstimate, Speed
from voxmlx.doctor.inventory import CachedModel, Microphones
from voxmlx.doctor.kernel_report import KernelReport
from voxmlx.doctor.machine import Machine

__all__ = ["Report", "StepTimes"]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Milliseconds that a model takes for 80 ms of sound."""

    model: str
    n_steps: int
    median_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """The whole page. `kernel_choice` is what VOXMLX_KERNELS says."""

    machine: Machine
    kernel_choice: str
    dtype: str
    sizes: str  # whose sizes kernels were tried at
    kernels: list[KernelReport]
    microphones: Microphones
    models: list[CachedModel]
    speed: Speed
    estimates: list[RealTimeEstimate]
    delay_ms: int
    steps: StepTimes | None

    @property
    def faults(self) -> list[str]:
        return [
            f"{kernel.name}, {timed.label}: {timed.fault}"
            for kernel in self.kernels
            for timed in kernel.results
            if timed.fault is not None
        ]

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "faults": self.faults}

    def text(self) -> str:
        parts = (
            self._machine(),
            self._kernels(),
            self._inventory(),
            self._real_time(),
            self._closing(),
        )
        return "\n\n".join("\n".join(part) for part in parts) + "\n"

    def _machine(self) -> Iterator[str]:
        m = self.machine
        yield ", ".join(
            [*(f"{name} {v}" for name, v in m.packages.items()), f"Python {m.python}"]
        )
        memory = _gb(m.memory_bytes) if m.memory_bytes else "unknown"
        yield f"{m.system}, {m.processor}, {m.n_cores} cores, {memory} of memory"
        if m.gpu is None:
            yield "no Metal: everything runs on the CPU, without kernels of ours"
        else:
            room = _gb(m.gpu_memory_bytes) if m.gpu_memory_bytes else "unknown"
            yield f"GPU {m.gpu}, which may use {room}"

    def _kernels(self) -> Iterator[str]:
        yield (
            f"kernels (VOXMLX_KERNELS={self.kernel_choice}), {self.dtype}, at the sizes "
            f"of {self.sizes}"
        )
        for kernel in self.kernels:
            yield f"  {kernel.name}: {'on' if kernel.off is None else kernel.off}"
            for t in kernel.results:
                if t.fault is not None:
                    yield f"    {t.label:26} FAILS: {t.fault}"
                    continue
                times = f"{t.ms:8.3f} ms" if t.ms is not None else ""
                if t.stock_ms is not None:
                    times += f", without it {t.stock_ms:8.3f} ms"
                yield f"    {t.label:26} error {t.error:7.1e} of {t.limit:7.1e} {times}"

    def _inventory(self) -> Iterator[str]:
        m = self.microphones
        if m.trouble is None:
            yield f"microphones: {m.n_inputs}, the default one at {m.default_rate_hz} Hz"
        else:
            yield f"microphones: none: {m.trouble}"
        names = (f"{model.repository} ({_gb(model.n_bytes)})" for model in self.models)
        yield f"models in the Hub's cache: {', '.join(names) or 'none'}"

    def _real_time(self) -> Iterator[str]:
        yield (
            f"real time of the full model: {AUDIO_TOKEN_MS} ms a step; measured "
            f"{self.speed.bytes_per_s / 1e9:.3g} GB/s, "
            f"{self.speed.launch_s * 1e6:.1f} us a launch"
        )
        yield (
            f"text lags {self.delay_ms} ms (--delay) and a step; full: after eleven minutes"
        )
        yield "  recipe    --kv-bits   memory   start     full   of 80 ms   real time   holds"
        for o in self.estimates:
            yield (
                f"  {o.recipe:9} {o.kv_bits:9} {_gb(o.memory_bytes):>8} "
                f"{o.start_ms:4.0f} ms {o.step_ms:5.0f} ms {o.share:10.0%}   "
                f"{o.verdict:9}   {_length(o.holds_hours)}"
            )
        if self.machine.gpu is None:
            yield "  (bytes alone; a CPU computes longer than it reads)"
        if (chip := chip_of(self.machine.processor)) is not None:
            yield f"  (for steps 80 ms apart on an {chip.name}; docs/macs.md has assumptions)"

    def _closing(self) -> Iterator[str]:
        if self.steps is not None:
            s = self.steps
            yield (
                f"{s.model}: {s.median_ms:.1f} ms a step (95 %: {s.p95_ms:.1f}), "
                f"{AUDIO_TOKEN_MS / s.median_ms:.1f} times real time, of {s.n_steps}"
            )
        yield (
            "no faults" if not self.faults else f"{len(self.faults)} FAULTS, see above"
        )


def _length(hours: float | None) -> str:
    """Return how long a stream holds real time, in words."""
    if hours is None:
        return "any length"
    return f"{60 * hours:.0f} minutes" if hours else "not at all"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
