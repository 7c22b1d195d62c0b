"""Limits of what MLX wires and keeps on a Mac, and memory that the system gets back."""

import ctypes
import resource
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

__all__ = [
    "MemoryLimits",
    "give_back_memory",
    "limit_memory",
    "little_cache",
    "peak_bytes",
]

# What steps free and take again is less than the smallest cache. A share of what the
# machine has left is for what grows: rings that are copied, more sessions.
_SMALLEST_CACHE = 128 * 2**20
_LARGEST_CACHE = 2**30
_CACHE_SHARE = 1 / 8

_CACHE_WHILE_LOADING = 64 * 2**20


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Bytes that macOS may not page out, and bytes that MLX keeps for later arrays."""

    wired_bytes: int
    cache_bytes: int


def limit_memory() -> MemoryLimits | None:
    """Set MLX's limits for this process, after `load`; None without Metal.

    Weights stay in memory between steps: MLX wires what it holds, up to what macOS lets
    a GPU use. MLX by itself wires nothing, and keeps any number of freed bytes; here it
    keeps an eighth of what is left, from 128 MB to 1 GB. Every command calls this. An
    application with other models may prefer limits of its own.
    """
    if not mx.metal.is_available():
        return None
    usable = int(mx.device_info()["max_recommended_working_set_size"])
    spare = max(0, usable - mx.get_active_memory())
    cache = min(max(int(spare * _CACHE_SHARE), _SMALLEST_CACHE), _LARGEST_CACHE)
    mx.set_wired_limit(usable)
    mx.set_cache_limit(cache)
    return MemoryLimits(usable, cache)


@contextmanager
def little_cache() -> Generator[None]:
    """Let MLX give back what it frees, as long as weights are read and joined."""
    before = mx.set_cache_limit(_CACHE_WHILE_LOADING)
    try:
        yield
    finally:
        mx.clear_cache()
        mx.set_cache_limit(before)


def give_back_memory() -> None:
    """Give the system what was freed: what MLX keeps, and what the C library keeps.

    Arrays, decoders and requests of many sizes leave holes that the C library keeps for
    later; after a busy hour of a server they are larger than all that it uses. glibc
    and macOS give them back when asked. Takes some ms, so it is for who is idle.
    """
    mx.clear_cache()
    c_library = ctypes.CDLL(None)
    if hasattr(c_library, "malloc_trim"):  # glibc
        c_library.malloc_trim(ctypes.c_size_t(0))
    elif hasattr(c_library, "malloc_zone_pressure_relief"):  # macOS
        c_library.malloc_zone_pressure_relief(None, ctypes.c_size_t(0))


def peak_bytes() -> int:
    """Return the most memory that this process ever held, in bytes.

    On Linux `ru_maxrss` begins with what the parent held when it started the process.
    """
    status = Path("/proc/self/status")
    if sys.platform == "linux" and status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
