"""What MLX's library for macOS must have is known for every kernel body."""

import importlib.util
import struct
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def metallib() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "metallib", ROOT / ".ci" / "metallib.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def library(names: list[str], symbols: list[str]) -> bytes:
    """The parts of a metallib that are read."""
    entries = b""
    for name in names:
        text = name.encode() + b"\0"
        tags = b"NAME" + struct.pack("<H", len(text)) + text
        tags += b"MDSZ" + struct.pack("<HQ", 8, 1) + b"ENDT"
        entries += struct.pack("<I", 4 + len(tags)) + tags
    head = b"MTLB".ljust(24, b"\0") + struct.pack("<Q", 88)
    table = struct.pack("<I", len(names)) + entries
    return head.ljust(88, b"\0") + table + "\0".join(symbols).encode()


def test_every_builtin_of_the_bodies_has_a_symbol(metallib: ModuleType) -> None:
    assert metallib.called_builtins() == set(metallib.BUILTINS)


def test_names_are_read_from_the_table(metallib: ModuleType) -> None:
    assert metallib.kernel_names(library(["one", "two_b"], [])) == ["one", "two_b"]


def test_what_a_library_lacks_is_named(metallib: ModuleType) -> None:
    names = [f"{needed}_x" for needed in metallib.needed_kernels()]
    symbols = list(metallib.BUILTINS.values())
    assert metallib.missing(library(names, symbols)) == []
    lacks = metallib.missing(library(names[1:], symbols[1:]))
    assert lacks == [
        "no kernel affine_qmv_float16_t_gs_64_b_4_batch_0...",
        "no air.fast_exp.f32, which fast::exp needs",
    ]


def test_a_file_of_another_kind_is_refused(metallib: ModuleType) -> None:
    with pytest.raises(SystemExit, match="no metallib"):
        metallib.kernel_names(b"ELF".ljust(100))
