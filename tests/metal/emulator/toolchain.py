"""Compiles translated kernels with clang, each source once per run of the tests."""

import atexit
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.metal.emulator.source import MLX_HEADERS, NATIVE, OVERLAY, MetalError

__all__ = [
    "SANITIZERS",
    "Toolchain",
    "find_compiler",
    "toolchain",
    "why_unavailable",
]

# bfloat16 arithmetic came with clang 18; tried with 19.
_OLDEST_CLANG = 18
_CANDIDATES = ("clang++-19", "clang++-20", "clang++-21", "clang++-18", "clang++")

SANITIZERS = {
    "address": (
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
        "-fno-sanitize=vptr",
    ),
    "thread": ("-fsanitize=thread",),
    "memory": ("-fsanitize=memory", "-fsanitize-memory-track-origins"),
}

# Every rounding to half and bfloat happens where the source says it does.
_PRECISION = (
    "-Xclang",
    "-ffloat16-excess-precision=none",
    "-Xclang",
    "-fbfloat16-excess-precision=none",
)
_KERNEL_FLAGS = (
    "-std=c++17",
    "-fno-exceptions",
    "-fno-rtti",
    "-nostdinc++",
    "-Wno-unknown-attributes",
    "-Wno-user-defined-literals",
    "-Wno-c++17-extensions",
    "-Wno-duplicate-decl-specifier",
    "-Wno-ignored-attributes",
    "-Wno-unused-value",
    *_PRECISION,
    "-ftls-model=initial-exec",
    "-fPIC",
)
_LINT_FLAGS = (
    "-DMSL_LINT=1",
    "-fsyntax-only",
    "-Wimplicit-float-conversion",
    "-Wsometimes-uninitialized",
    "-Wuninitialized",
    "-Wshadow",
    "-Wdouble-promotion",
)
_RUNTIME = ("switch.cpp", "scheduler.cpp", "guards.cpp", "dispatch.cpp")

# What Metal's standard headers are called; all of them are the shim.
_METAL_HEADERS = (
    "metal_atomic",
    "metal_common",
    "metal_compute",
    "metal_integer",
    "metal_limits",
    "metal_logging",
    "metal_math",
    "metal_simdgroup",
    "metal_simdgroup_matrix",
    "metal_stdlib",
    "metal_type_traits",
)


@cache
def find_compiler() -> str | None:
    """A clang++ that is new enough, or None."""
    for name in _CANDIDATES:
        path = shutil.which(name)
        if path is None:
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True)
        version = re.search(r"clang version (\d+)", said.stdout)
        if version is not None and int(version.group(1)) >= _OLDEST_CLANG:
            return path
    return None


def why_unavailable() -> str | None:
    """Why kernels cannot be emulated here; None if they can."""
    if find_compiler() is None:
        return (
            f"no clang {_OLDEST_CLANG} or later: the Metal kernels are NOT tested; "
            "apt-get install clang-19 libclang-rt-19-dev"
        )
    return None


@cache
def toolchain() -> "Toolchain":
    """This process's toolchain, in a folder that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="metal-emulator-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Toolchain(folder)


class Toolchain:
    """clang over a folder of what it has built, named by content."""

    def __init__(self, folder: Path) -> None:
        compiler = find_compiler()
        assert compiler is not None, why_unavailable()
        self._compiler = compiler
        self._folder = folder
        headers = folder / "include"
        headers.mkdir()
        for name in _METAL_HEADERS:
            (headers / name).write_text('#include "shim.h"\n', encoding="utf-8")
        self._includes = [
            f"-I{path}" for path in (OVERLAY, MLX_HEADERS, headers, NATIVE)
        ]

    def library(self, text: str) -> Path:
        """A shared library whose `msl_dispatch` runs the kernel of `text`."""
        path = self._folder / f"{_digest(text)}.so"
        if not path.exists():
            kernel = self._kernel(text, ("-O2", "-march=native", "-g1"))
            runtime = self._runtime(("-O2",))
            self._run("-shared", "-Wl,-Bsymbolic", *kernel, *runtime, "-o", path)
        return path

    def program(self, text: str, sanitizer: str) -> Path:
        """An executable that runs the kernel of `text` under a sanitizer."""
        path = self._folder / f"{_digest(text)}-{sanitizer}"
        if not path.exists():
            flags = ("-O1", "-g", *SANITIZERS[sanitizer])
            kernel = self._kernel(text, flags)
            runtime = self._runtime(flags)
            main = self._object("main.cpp", flags)
            self._run(*SANITIZERS[sanitizer], *kernel, *runtime, main, "-o", path)
        return path

    def lint(self, text: str) -> list[str]:
        """What a compiler with address spaces says about the kernel of `text`.

        Metal converts float to half by itself, as C++ does, but not to bfloat. What
        MLX's own headers give rise to is left out: not all of Metal's rules about
        address spaces are clang's.
        """
        done = subprocess.run(
            [
                self._compiler,
                *_KERNEL_FLAGS,
                *_LINT_FLAGS,
                *self._includes,
                "-ferror-limit=0",
                "-include",
                "shim.h",
                self._written(text, "lint"),
            ],
            capture_output=True,
            text=True,
        )
        found = []
        for line in done.stderr.splitlines():
            if not re.match(r"kernel\.metal:\d+:\d+: (error|warning): ", line):
                continue
            is_conversion = "implicit-float-conversion" in line
            if is_conversion and "to '__bf16'" not in line and "'bfloat" not in line:
                continue
            found.append(line)
        return found

    def _kernel(self, text: str, flags: tuple[str, ...]) -> list[Path]:
        source = self._written(text, "kernel")
        result = source.with_suffix(f".{_digest(*flags)}.o")
        if not result.exists():
            self._run(
                *_KERNEL_FLAGS,
                *flags,
                *self._includes,
                "-include",
                "shim.h",
                "-c",
                source,
                "-o",
                result,
            )
        return [result]

    def _runtime(self, flags: tuple[str, ...]) -> list[Path]:
        return [self._object(name, flags) for name in _RUNTIME]

    def _object(self, name: str, flags: tuple[str, ...]) -> Path:
        result = self._folder / f"{name}.{_digest(*flags)}.o"
        if not result.exists():
            self._run(
                "-std=c++17",
                "-fPIC",
                "-fvisibility=hidden",
                "-ftls-model=initial-exec",
                *flags,
                "-c",
                NATIVE / name,
                "-o",
                result,
            )
        return result

    def _written(self, text: str, kind: str) -> Path:
        path = self._folder / f"{_digest(text)}-{kind}.cpp"
        path.write_text(text, encoding="utf-8")
        return path

    def _run(self, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._compiler, *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"LC_ALL": "C"},
        )
        if done.returncode:
            raise MetalError(done.stderr)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
