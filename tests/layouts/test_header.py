"""Headers of safetensors files: read as they are, refused where they are wrong."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.errors import CheckpointError
from voxmlx.layouts.header import read_header


def entry(*span: int, shape: object = (2,), dtype: object = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(span)}


def write(path: Path, header: object, n_data: int, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    n = len(text) if length is None else length
    path.write_bytes(n.to_bytes(8, "little") + text + bytes(n_data))
    return path


def test_entries_say_where_mlx_has_written_each_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {
        "a": mx.arange(6).reshape(2, 3).astype(mx.float32),
        "b": mx.array([7, 8], mx.uint32),
        "none": mx.zeros((0, 4)),
        "c": mx.array([1.5], mx.bfloat16),
    }
    mx.save_safetensors(str(path), tensors, {"format": "mlx"})
    entries = read_header(path)
    assert entries.keys() == tensors.keys()
    content = path.read_bytes()
    for name, tensor in tensors.items():
        found = entries[name]
        assert found.shape == tensor.shape
        assert (
            content[found.start : found.end]
            == np.array(tensor.view(mx.uint8)).tobytes()
        )
    assert {entry.dtype for entry in entries.values()} == {"F32", "U32", "BF16"}


@pytest.mark.parametrize(
    ("header", "n_data", "why"),
    [
        (b"", 0, "no header fits"),
        (b"{", 0, "no header fits"),
        (b"not json", 0, "not JSON"),
        (b"\xff\xfe{}", 0, "not JSON"),
        (b"[" * 5000, 0, "not JSON"),
        ([1, 2], 0, "no JSON object"),
        ({"a": 3}, 0, "does not say what a is"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "does not say what a is"),
        ({"a": entry(0, 8, 9)}, 9, "does not say what a is"),
        ({"a": entry(0, 8, dtype="F31")}, 8, "unknown type F31"),
        ({"a": entry(0, 8, shape=[-2])}, 8, "has the sizes"),
        ({"a": entry(0, 8, shape=[2.0])}, 8, "has the sizes"),
        ({"a": entry(0, 4, shape=[True])}, 4, "has the sizes"),
        ({"a": entry(8, 0)}, 8, "has -8 bytes"),
        ({"a": entry(0, 12)}, 12, "has 12 bytes for"),
        ({"a": entry(4, 12)}, 12, "do not follow one another"),
        ({"a": entry(0, 8), "b": entry(0, 8)}, 16, "do not follow one another"),
        ({"a": entry(0, 8), "b": entry(12, 20)}, 20, "do not follow one another"),
        ({"a": entry(0, 8)}, 7, "its header says"),
        ({"a": entry(0, 8)}, 9, "its header says"),
        (b'{"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "a": 1}', 4, "twice"),
    ],
)  # fmt: skip
def test_a_damaged_header_is_refused_with_the_reason(
    header: object, n_data: int, why: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "model.safetensors", header, n_data)
    with pytest.raises(CheckpointError, match=f"damaged or cut short.*{why}"):
        read_header(path)


@pytest.mark.parametrize("length", [1, 3, 2**40, 2**64 - 1])
def test_a_wrong_length_of_the_header_is_refused(length: int, tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", {"a": entry(0, 8)}, 8, length)
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        read_header(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors is missing"):
        read_header(tmp_path / "none.safetensors")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        read_header(tmp_path)
