"""python -m benchmarks.convert SOURCE DEST: time and memory of a conversion.

The floor is what reading, `mx.quantize` and writing cost on their own: the same
blocks, without a header, a digest, a check or a name. It is measured before and
after the conversion, so that other load on the machine shows; CPU seconds stand
beside wall seconds for the same reason.
"""

import argparse
import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np

from benchmarks.provenance import closing_line
from benchmarks.resident_memory import Resident, resident
from convert.__main__ import convert
from convert.source import BLOCK_BYTES
from voxmlx import load
from voxmlx.layouts import ModelFiles, open_model
from voxmlx.layouts.recipes import RECIPES, precisions


def main() -> None:
    """Print a table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--recipe", default="q4", choices=RECIPES)
    parser.add_argument(
        "--floor-share",
        type=float,
        default=1.0,
        help="part of the modules the floor is measured on and scaled from",
    )
    options = parser.parse_args()
    files = open_model(options.source)

    def floor() -> float:
        return _floor(files, options.recipe, options.destination, options.floor_share)

    before = _timed(floor)
    with _Memory() as memory:
        whole = _timed(
            lambda: convert(
                str(options.source), options.destination, recipe=options.recipe
            )
        )
    after = _timed(floor)
    scale = [1 / before[2], 1 / after[2]]
    floor_wall = (before[0] * scale[0] + after[0] * scale[1]) / 2
    floor_cpu = (before[1] * scale[0] + after[1] * scale[1]) / 2
    load(options.destination)  # once, so that the file cache has it
    loading = _timed(lambda: load(options.destination))
    row = {
        "recipe": options.recipe,
        "source_gb": sum(p.stat().st_size for p in files.paths) / 1e9,
        "wall_s": whole[0],
        "cpu_s": whole[1],
        "floor_wall_s": floor_wall,
        "floor_cpu_s": floor_cpu,
        "wall_ratio": whole[0] / floor_wall,
        "cpu_ratio": whole[1] / floor_cpu,
        "anonymous_peak_gb": memory.anonymous / 1e9,
        "resident_peak_gb": memory.resident / 1e9,
        "load_wall_s": loading[0],
        "load_cpu_s": loading[1],
    }
    for key, value in row.items():
        print(
            f"{key:20} {value:.3f}" if isinstance(value, float) else f"{key:20} {value}"
        )
    print(closing_line("convert", **row))


def _timed(body: Callable[[], object]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds, and what `body` returned if it is a number."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = body()
    number = result if isinstance(result, float) else 1.0
    return time.perf_counter() - wall, time.process_time() - cpu, number


def _floor(files: ModelFiles, recipe: str, destination: Path, share: float) -> float:
    """Read, quantize and write about `share` of the model; returns the share."""
    chosen = precisions(RECIPES[recipe], files.modules.values(), files.precisions)
    step = max(1, round(1 / share))
    scratch = destination.with_name(destination.name + ".floor")
    n_all = n_done = 0
    with scratch.open("wb") as out:
        for i, (name, tensor) in enumerate(files.tensors.items()):
            n_all += tensor.n_bytes
            if i % step:
                continue
            n_done += tensor.n_bytes
            stored = mx.load(str(tensor.path))
            assert isinstance(stored, dict)
            whole = stored.pop(tensor.stored_name)
            del stored
            target = chosen.get(tensor.module.path) if name.endswith("weight") else None
            n_rows = max(1, BLOCK_BYTES // max(1, whole[:1].nbytes))
            for start in range(0, whole.shape[0], n_rows):
                block = whole[start : start + n_rows].astype(mx.bfloat16)
                parts = [block]
                if target is not None:
                    parts = mx.quantize(
                        block, group_size=target.group_size, bits=target.bits
                    )
                for part in parts:
                    bits = part.view(mx.uint16) if part.dtype == mx.bfloat16 else part
                    out.write(np.array(bits).data)
            del whole
        out.flush()
        os.fsync(out.fileno())
    scratch.unlink()
    return n_done / n_all


class _Memory:
    """The peaks of this process's memory while inside, sampled."""

    def __enter__(self) -> "_Memory":
        self.anonymous = self.resident = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            found = resident(os.getpid())
            if found is None:  # macOS keeps a maximum only
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                found = Resident(peak, peak)
            self.anonymous = max(self.anonymous, found.anonymous)
            self.resident = max(self.resident, found.all)


if __name__ == "__main__":
    main()
