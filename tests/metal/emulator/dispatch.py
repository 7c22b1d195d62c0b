"""Runs a compiled kernel over NumPy buffers, in this process or under a sanitizer."""

import ctypes
import os
import struct
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.metal.emulator.source import MetalError
from tests.metal.emulator.toolchain import toolchain

__all__ = ["Buffer", "Options", "Stats", "dispatch", "run_under"]

Size = tuple[int, int, int]

_MESSAGE_BYTES = 2048

# The runtime keeps one dispatch at a time.
_LOCK = threading.Lock()


@dataclass(slots=True)
class Buffer:
    """A kernel's argument; `array`, contiguous, is written back if an output."""

    name: str
    array: np.ndarray
    is_output: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """How threads are scheduled: in order (seed 0) or at random, on how many cores.

    `poison` fills threadgroup memory. `is_strict` refuses what hardware tolerates:
    a simdgroup operation that some lanes have not reached.
    """

    seed: int = 0
    workers: int = 1
    poison: int = 0xFF
    is_strict: bool = True
    threadgroup_bytes: int = 32768

    def words(self) -> tuple[int, ...]:
        return (
            self.seed,
            self.workers,
            self.poison,
            int(self.is_strict),
            self.threadgroup_bytes,
        )


@dataclass(frozen=True, slots=True)
class Stats:
    """What a dispatch did."""

    switches: int
    simd_operations: int
    barriers: int
    threadgroup_bytes: int


def dispatch(
    library: Path,
    buffers: list[Buffer],
    grid: Size,
    threadgroup: Size,
    options: Options,
    constants: dict[int, Any] | None = None,
) -> Stats:
    """Run a kernel once; outputs are changed in place.

    Every buffer ends at an unmapped page and inputs cannot be written. `constants`
    are Metal's function constants by number, ctypes values. Raises MetalError.
    """
    native = _loaded(library)
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    counts = (ctypes.c_uint64 * 4)()
    with _LOCK:
        for number, value in (constants or {}).items():
            type(value).in_dll(native, f"msl_fc_{number}").value = value.value
        starts = []
        for buffer in buffers:
            start = native.msl_guard_alloc(
                buffer.name.encode(), max(buffer.array.nbytes, 1)
            )
            ctypes.memmove(start, buffer.array.ctypes.data, buffer.array.nbytes)
            if not buffer.is_output:
                native.msl_guard_readonly(start)
            starts.append(start)
        words = options.words()
        failed = native.msl_dispatch(
            native.msl_entry,
            (ctypes.c_void_p * len(starts))(*starts),
            (ctypes.c_uint32 * 3)(*grid),
            (ctypes.c_uint32 * 3)(*threadgroup),
            (ctypes.c_uint32 * len(words))(*words),
            counts,
            message,
            _MESSAGE_BYTES,
        )
        for buffer, start in zip(buffers, starts, strict=True):
            if buffer.is_output:
                ctypes.memmove(buffer.array.ctypes.data, start, buffer.array.nbytes)
        native.msl_guard_free_all()
    if failed:
        raise MetalError(message.value.decode())
    return Stats(*counts)


@cache
def _loaded(library: Path) -> ctypes.CDLL:
    native = ctypes.CDLL(str(library))
    native.msl_dispatch.restype = ctypes.c_int
    native.msl_guard_alloc.restype = ctypes.c_void_p
    native.msl_guard_alloc.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    native.msl_guard_readonly.argtypes = [ctypes.c_void_p]
    return native


def run_under(
    sanitizer: str,
    text: str,
    buffers: list[Buffer],
    grid: Size,
    threadgroup: Size,
    options: Options,
    timeout_s: float = 120,
) -> None:
    """Run the kernel of `text` under a sanitizer; outputs are changed in place.

    Raises MetalError with what the sanitizer said, or after `timeout_s`.
    """
    program = toolchain().program(text, sanitizer)
    environment = os.environ | {
        "TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0",
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
    }
    with tempfile.TemporaryDirectory() as folder:
        job, results = Path(folder) / "job", Path(folder) / "results"
        with job.open("wb") as file:
            numbers = (*grid, *threadgroup, *options.words(), len(buffers))
            file.write(struct.pack(f"{len(numbers)}I", *numbers))
            for buffer in buffers:
                file.write(
                    struct.pack("<QI", buffer.array.nbytes, int(buffer.is_output))
                )
                file.write(buffer.array.tobytes())
        try:
            done = subprocess.run(
                [program, job, results],
                capture_output=True,
                text=True,
                env=environment,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise MetalError(f"still running after {timeout_s} s") from error
        if done.returncode:
            raise MetalError(f"{sanitizer}: {done.stderr}")
        content = results.read_bytes()
    at = 0
    for buffer in buffers:
        if buffer.is_output:
            n = buffer.array.nbytes
            flat = np.frombuffer(content[at : at + n], np.uint8)
            buffer.array.reshape(-1).view(np.uint8)[:] = flat
            at += n
