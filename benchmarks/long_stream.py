"""Hours of sound through one session: is memory flat, and the time of a step?

python -m benchmarks.long_stream [--hours 3] [--model DIR_OR_ID] [--dtype float32]

Pushes 80 ms pieces as fast as the machine allows and prints, per minute of sound,
the resident memory and the median step. Without --model it makes a tiny random
checkpoint of the true architecture, whose rings wrap every few seconds. Ends in one
JSON line; exit status 1 if memory grew by 2 MB or the step by 5 % from the fifth
minute to the last.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import psutil

from tests.sounds import speech_like
from tests.tiny import TinyModel
from voxmlx import Checkpoint, Session, load
from voxmlx.config import SAMPLES_PER_AUDIO_TOKEN

STEPS_PER_MINUTE = 750
REFERENCE_MINUTE = 5
MAX_GROWTH_MB = 2.0
MAX_SLOWDOWN = 1.05


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of sound: memory at its end, and what a step took, in ms."""

    resident_mb: float
    mlx_mb: float
    step_ms: float
    step_cpu_ms: float


def run(checkpoint: Checkpoint, minutes: int) -> list[Minute]:
    """Stream `minutes` of sound; a loop of ten seconds repeats for ever."""
    process = psutil.Process()
    session = Session(checkpoint)
    sound = speech_like(125 * SAMPLES_PER_AUDIO_TOKEN, seed=1)
    pieces = np.split(sound, 125)
    measured: list[Minute] = []
    wall, cpu = np.empty(STEPS_PER_MINUTE), np.empty(STEPS_PER_MINUTE)
    for minute in range(minutes):
        for i in range(STEPS_PER_MINUTE):
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            session.push(pieces[i % len(pieces)])
            wall[i] = time.perf_counter() - wall_start
            cpu[i] = time.process_time() - cpu_start
        measured.append(
            Minute(
                resident_mb=process.memory_info().rss / 2**20,
                mlx_mb=(mx.get_active_memory() + mx.get_cache_memory()) / 2**20,
                step_ms=statistics.median(wall) * 1000,
                step_cpu_ms=statistics.median(cpu) * 1000,
            )
        )
        if minute < REFERENCE_MINUTE or (minute + 1) % 10 == 0:
            print(_row(minute + 1, measured[-1]), flush=True)
    return measured


def _row(minute: int, m: Minute) -> str:
    return (
        f"{minute:>6} {m.resident_mb:>12.2f} {m.mlx_mb:>8.2f} "
        f"{m.step_ms:>9.3f} {m.step_cpu_ms:>9.3f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--model", help="directory or Hub id; default: tiny, random")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    minutes = round(args.hours * 60)
    if minutes <= REFERENCE_MINUTE:
        parser.error(f"--hours must be more than {REFERENCE_MINUTE} minutes")

    with tempfile.TemporaryDirectory() as directory:
        model = args.model or TinyModel().write(Path(directory))
        checkpoint = load(model, args.dtype)
    print("minute  resident MB   mlx MB   step ms    cpu ms")
    measured = run(checkpoint, minutes)
    print(_row(minutes, measured[-1]))
    reference, last = measured[REFERENCE_MINUTE - 1], measured[-1]
    growth = last.resident_mb - reference.resident_mb
    # The processor's own time: on a shared machine the clock also counts others.
    slowdown = last.step_cpu_ms / reference.step_cpu_ms
    result = {
        "benchmark": "long_stream",
        "minutes": minutes,
        "growth_mb": round(growth, 3),
        "step_ratio_cpu": round(slowdown, 4),
        "step_ratio_wall": round(last.step_ms / reference.step_ms, 4),
        "step_ms": round(last.step_ms, 3),
        "machine": platform.machine(),
        "system": platform.platform(),
        "mlx": mx.__version__,
    }
    print(json.dumps(result))
    return int(growth >= MAX_GROWTH_MB or slowdown > MAX_SLOWDOWN)


if __name__ == "__main__":
    sys.exit(main())
