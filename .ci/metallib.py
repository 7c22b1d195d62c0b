"""Checks that MLX's library for macOS has every kernel and builtin that a step needs.

    python .ci/metallib.py              the version of MLX that is installed here
    python .ci/metallib.py 0.32.4 ...   these versions

Each version's wheel for macOS is fetched from the registry. Its `mlx.metallib` names its
kernels in a table. Apple's compiler has turned builtins into symbols such as
`air.simd_sum.f32`, whose names stand in the file too. So this runs without a Mac. A
builtin that MLX itself uses is one that Apple's compiler knows.
"""

import argparse
import mmap
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
BODIES = ROOT / "voxmlx" / "kernels"

# What a kernel body calls -> the symbol that Apple's compiler makes of it for a float.
BUILTINS = {
    "fast::exp": "air.fast_exp.f32",
    "metal::fabs": "air.fabs.f32",
    "metal::max": "air.fmax.f32",
    "metal::min": "air.fmin.f32",
    "metal::rint": "air.rint.f32",
    "precise::rsqrt": "air.rsqrt.f32",
    "simd_max": "air.simd_max.f32",
    "simd_shuffle_xor": "air.simd_shuffle_xor.f32",
    "simd_sum": "air.simd_sum.f32",
    "threadgroup_barrier": "air.wg.barrier",
}
_CALL = re.compile(r"\b((?:(?:metal|fast|precise)::|simd_|threadgroup_)\w+)\s*\(")

# Beginnings of the names of MLX's kernels that a step runs; {t} is a type, {b} bits.
QUANTIZED = (
    "affine_qmv_{t}_gs_64_b_{b}_batch_0",  # a live step of the encoder
    "affine_qmv_fast_{t}_gs_64_b_{b}_batch_0",  # and of the decoder
    "affine_qmm_t_{t}_gs_64_b_{b}_alN_true_batch_0",  # a file, a prompt
    "affine_dequantize_{t}_gs_64_b_{b}",  # a row of the embedding
)
OTHERS = (
    "sdpa_vector_{t}_128_128",
    "sdpa_vector_2pass_1_{t}_128_128",
    "sdpa_vector_2pass_2_{t}_128",
    "rms{s}",
    "argmax_{s}",
    "v_copy{s}{s}",
    "g1_copy{s}{s}",
    "steel_gemm_fused_nt_{s}_{s}",
)
# A type as the templates call it, and as other names have it.
TYPES = {"float16_t": "float16", "bfloat16_t": "bfloat16"}
BITS = (4, 6, 8)


def called_builtins() -> set[str]:
    """Return every builtin that a kernel body calls."""
    texts = [path.read_text("utf-8") for path in BODIES.glob("*.metal")]
    return {name for text in texts for name in _CALL.findall(text)}


def needed_kernels() -> Iterator[str]:
    """Yield the beginnings of names of which each has to have a kernel."""
    for t, s in TYPES.items():
        for bits in BITS:
            yield from (name.format(t=t, b=bits) for name in QUANTIZED)
        yield from (name.format(t=t, s=s) for name in OTHERS)


def kernel_names(content: bytes | mmap.mmap) -> list[str]:
    """Return the names in a metallib's table of functions."""
    if content[:4] != b"MTLB":
        sys.exit("no metallib: it begins with other bytes")
    (start,) = struct.unpack_from("<Q", content, 24)
    (n,) = struct.unpack_from("<I", content, start)
    names: list[str] = []
    entry = start + 4
    for _ in range(n):
        (size,) = struct.unpack_from("<I", content, entry)
        at, end = entry + 4, entry + size
        while at < end and (tag := content[at : at + 4]) != b"ENDT":
            (length,) = struct.unpack_from("<H", content, at + 4)
            if tag == b"NAME":
                names.append(content[at + 6 : at + 5 + length].decode())
            at += 6 + length
        entry = end
    return names


def missing(content: bytes | mmap.mmap) -> list[str]:
    """Return what a metallib lacks, in words."""
    names = sorted(kernel_names(content))
    found = [
        f"no kernel {needed}..."
        for needed in needed_kernels()
        if not any(name.startswith(needed) for name in names)
    ]
    for name in sorted(called_builtins()):
        symbol = BUILTINS.get(name)
        if symbol is None:
            found.append(f"{name} is called, and this script does not know its symbol")
        elif content.find(symbol.encode()) < 0:
            found.append(f"no {symbol}, which {name} needs")
    return found


def fetched(release: str, folder: Path) -> Path:
    """Return the metallib of a release's wheel for macOS. Exits with pip's words."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--platform", "macosx_14_0_arm64", "--only-binary=:all:"]
    command += ["--dest", str(folder), f"mlx-metal=={release}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"no wheel of mlx-metal {release} for macOS:\n{done.stderr}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".metallib"))
        return Path(archive.extract(name, folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("release", nargs="*", default=[version("mlx")])
    status = 0
    for release in parser.parse_args().release:
        with tempfile.TemporaryDirectory() as name:
            path = fetched(release, Path(name))
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                n, lacks = len(kernel_names(content)), missing(content)
        print(f"MLX {release}, macOS: {n} kernels; {len(lacks)} missing of ours")
        for line in lacks:
            print(f"  {line}")
        status |= bool(lacks)
    return status


if __name__ == "__main__":
    sys.exit(main())
