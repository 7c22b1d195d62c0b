"""Provenance of a figure: the last line of every benchmark."""

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from voxmlx import Checkpoint

__all__ = ["closing_line", "machine", "recipe_of"]


def machine() -> dict[str, str | int]:
    """Commit, processor, operating system, and what MLX is and runs on."""
    info = mx.device_info()
    return {
        "commit": _commit(),
        "machine": platform.machine(),
        "chip": str(info.get("device_name") or _processor()),
        "n_cores": os.cpu_count() or 1,
        "system": platform.platform(),
        "python": platform.python_version(),
        "mlx": version("mlx"),
        "device": str(mx.default_device()),
    }


def closing_line(benchmark: str, **figures: object) -> str:
    """One line of JSON: the benchmark's name, its figures, the machine."""
    return json.dumps({"benchmark": benchmark, **figures, **machine()})


def recipe_of(checkpoint: Checkpoint) -> str:
    """Return the recipe a converted model names, or the dtype of one that is not."""
    config = Path(checkpoint.name) / "config.json"
    if config.is_file():
        named = json.loads(config.read_text(encoding="utf-8")).get("recipe")
        if named is not None:
            return str(named)
    return checkpoint.dtype


def _commit() -> str:
    """The commit measured, with a + where the tree differs from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(
        command, capture_output=True, cwd=Path(__file__).parent, check=False
    )
    return done.stdout.decode().strip() or "unknown"


def _processor() -> str:
    """The processor's name where Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.processor()
