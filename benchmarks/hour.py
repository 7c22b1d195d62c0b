"""python -m benchmarks.hour [--minutes 60] [--plot FILE.png]: an hour of live sound.

The demo model hears it in pieces of 80 ms, as fast as the machine allows. The lag is
what the pace of speech would make of these steps: a piece waits for its sound, and for
the steps before it. Prints and plots lag, step and memory, minute by minute, and ends in
one JSON line. Exit status 1 if memory grew by more than 2 MB after minute five.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
import psutil

from benchmarks.provenance import closing_line
from benchmarks.ratios import Spread
from benchmarks.realtime import STEPS_PER_MINUTE, Run, demo_sound, stream
from voxmlx import demo, load
from voxmlx.config import AUDIO_TOKEN_MS

MAX_GROWTH_MB = 2.0
_SETTLED = 5  # minutes

__all__ = ["Minute", "lags_at_pace", "main", "plot"]


@dataclass(frozen=True, slots=True)
class Minute:
    """A minute's lag and step in ms, and memory in MB at its end."""

    lag: Spread
    step: Spread
    resident_mb: float
    mlx_mb: float


def lags_at_pace(steps_ms: Iterable[float]) -> Iterator[float]:
    """Return the lag of each audio token of live sound, in seconds."""
    lag = 0.0
    for step in steps_ms:
        lag = max(0.0, lag - AUDIO_TOKEN_MS) + step
        yield lag


def plot(minutes: list[Minute], path: Path) -> None:
    """Three panels over the minutes: lag, step, memory."""
    # Heavy, and of the extra `bench`.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    x = range(1, len(minutes) + 1)
    figure, (lag, step, memory) = plt.subplots(
        3, 1, figsize=(7, 6), sharex=True, layout="constrained"
    )
    for axes, name, spreads in (
        (lag, "lag, ms", [m.lag for m in minutes]),
        (step, "step, ms", [m.step for m in minutes]),
    ):
        axes.plot(x, [s.p50 for s in spreads], label="median")
        axes.plot(x, [s.p95 for s in spreads], label="95 %")
        axes.plot(x, [s.p99 for s in spreads], label="99 %", alpha=0.6)
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
    lag.legend(loc="upper right", ncols=3, fontsize="small")
    memory.plot(x, [m.resident_mb for m in minutes], label="resident")
    memory.plot(x, [m.mlx_mb for m in minutes], label="of MLX")
    memory.set_ylim(bottom=0)
    memory.set_ylabel("memory, MB")
    memory.legend(loc="center right", fontsize="small")
    memory.set_xlabel("minutes of sound")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    if arguments.minutes <= _SETTLED:
        parser.error(f"--minutes must be more than {_SETTLED}")
    process = psutil.Process()
    memory: list[tuple[float, float]] = []

    def noted(i: int, run: Run) -> None:
        if (i + 1) % STEPS_PER_MINUTE == 0:
            of_mlx = mx.get_active_memory() + mx.get_cache_memory()
            memory.append((process.memory_info().rss / 1e6, of_mlx / 1e6))

    n_steps = arguments.minutes * STEPS_PER_MINUTE
    run = stream(load(demo.NAME), demo_sound(), n_steps, noted=noted)
    lags = list(lags_at_pace(run.steps))
    minutes = [
        Minute(Spread.of(lags[part]), Spread.of(run.steps[part]), *memory[i])
        for i in range(arguments.minutes)
        for part in [slice(i * STEPS_PER_MINUTE, (i + 1) * STEPS_PER_MINUTE)]
    ]
    print("minute   lag p50    p99   step p50    p99   resident MB   mlx MB")
    for i, m in enumerate(minutes, start=1):
        if i <= _SETTLED or i % 10 == 0 or i == len(minutes):
            print(
                f"{i:6} {m.lag.p50:9.2f} {m.lag.p99:6.2f} {m.step.p50:10.2f} "
                f"{m.step.p99:6.2f} {m.resident_mb:13.1f} {m.mlx_mb:8.1f}"
            )
    if arguments.plot:
        plot(minutes, arguments.plot)
    settled, last = minutes[_SETTLED - 1], minutes[-1]
    growth = last.resident_mb - settled.resident_mb
    print(
        closing_line(
            "hour",
            minutes=len(minutes),
            n_tokens=run.n_tokens,
            growth_mb=growth,
            step_ratio=last.step.p50 / settled.step.p50,
            lag_ms=asdict(Spread.of(lags)),
            step_ms=asdict(Spread.of(run.steps)),
        )
    )
    return int(growth > MAX_GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main())
