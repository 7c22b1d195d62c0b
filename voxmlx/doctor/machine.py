"""The machine, its system, and the versions of what runs on it."""

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mlx.core as mx

__all__ = ["Machine", "this_machine"]

_PACKAGES = {"voxmlx": "voxmlx-realtime", "mlx": "mlx", "numpy": "numpy"}


@dataclass(frozen=True, slots=True)
class Machine:
    """`gpu` is Metal's name of the architecture, None without Metal.

    `gpu_memory_bytes` is how much of the memory macOS lets a GPU work in.
    """

    system: str
    processor: str
    n_cores: int
    memory_bytes: int | None
    gpu: str | None
    gpu_memory_bytes: int | None
    python: str
    packages: dict[str, str]


def this_machine() -> Machine:
    has_metal = mx.metal.is_available()
    info = mx.device_info()
    gpu_memory = info.get("max_recommended_working_set_size") if has_metal else None
    name = info.get("device_name") if has_metal else None
    return Machine(
        system=_system(),
        processor=str(name or _processor()),
        n_cores=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        gpu=str(info.get("architecture")) if has_metal else None,
        gpu_memory_bytes=int(gpu_memory) if gpu_memory else None,
        python=platform.python_version(),
        packages={name: _version(package) for name, package in _PACKAGES.items()},
    )


def _system() -> str:
    release, _, machine = platform.mac_ver()
    if release:
        return f"macOS {release} {machine}"
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def _processor() -> str:
    """The processor's name where Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.processor() or "unknown"


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):  # a system that does not tell
        return None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
