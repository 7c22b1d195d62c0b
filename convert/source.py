"""A source's tensors, mapped into memory and read a block of rows at a time."""

import mmap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from math import prod

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.errors import CheckpointError
from voxmlx.layouts import ModelFiles, Module, StoredTensor
from voxmlx.layouts.finite import is_finite

from .disk import Stamp, source_errors

__all__ = ["BLOCK_BYTES", "Source", "finite"]

BLOCK_BYTES = 32 * 2**20

# bfloat16 is no NumPy type: its bits travel as uint16.
_NUMPY = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "U8": np.dtype("u1"),
}


class Source:
    """Reads modules of a checked model directory in our order, dense or packed.

    Raises CheckpointError when a file is not the one of its stamp any more, which is
    looked at before every block: what is mapped and cut short kills who reads it. That
    remains where it happens within a block, and leaves what any kill leaves.
    """

    def __init__(self, files: ModelFiles, stamps: Sequence[Stamp]) -> None:
        self.files = files
        self._opened = ExitStack()
        self._maps = {
            stamp.path: self._opened.enter_context(_Mapped(stamp)) for stamp in stamps
        }

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def n_bytes(self, module: Module) -> int:
        """Return the bytes of the module in the source's files."""
        return sum(tensor.n_bytes for tensor in self._tensors(module))

    def blocks(self, module: Module, dtype: mx.Dtype) -> Iterator[mx.array]:
        """The module's weight in `dtype`, some rows [n, ...] at a time.

        Raises CheckpointError when a value is NaN or infinite in `dtype`.
        """
        precision = self.files.precisions.get(module.path)
        weight = self._ours(module, "weight")
        if precision is None:
            for rows in _row_blocks(weight):
                self._check(module)
                block = _to_mx(rows, self._tensor(module, "weight").dtype)
                yield finite(module, block.astype(dtype))
            return
        scaling = [(s, self._ours(module, s)) for s in precision.suffixes[1:]]
        start = 0
        for rows in _row_blocks(weight, expansion=32 // precision.bits):
            part = slice(start, start + len(rows))
            start = part.stop
            self._check(module)
            scales = {
                suffix: _as_floats(self._mx(module, suffix, values[part]), mx.float32)
                for suffix, values in scaling
            }
            block = mx.dequantize(
                mx.array(np.ascontiguousarray(rows)),
                scales["scales"],
                scales.get("biases"),
                group_size=precision.group_size,
                bits=precision.bits,
                mode=precision.mode,
            )
            yield finite(module, block.astype(dtype))

    def whole(self, module: Module, suffix: str, dtype: mx.Dtype) -> mx.array:
        """A small tensor of the module, or one of packed integers."""
        self._check(module)
        array = self._mx(module, suffix, self._ours(module, suffix))
        return finite(module, _as_floats(array, dtype))

    def release(self, module: Module) -> None:
        """Give the module's pages back; the file cache keeps them."""
        for tensor in self._tensors(module):
            self._maps[tensor.path].release(tensor)

    def _check(self, module: Module) -> None:
        for tensor in self._tensors(module):
            self._maps[tensor.path].check()

    def _tensors(self, module: Module) -> list[StoredTensor]:
        names = [f"{module.path}.{s}" for s in ("weight", "scales", "biases", "bias")]
        return [self.files.tensors[n] for n in names if n in self.files.tensors]

    def _tensor(self, module: Module, suffix: str) -> StoredTensor:
        return self.files.tensors[f"{module.path}.{suffix}"]

    def _array(self, tensor: StoredTensor) -> NDArray[np.number]:
        return self._maps[tensor.path].array(tensor)

    def _ours(self, module: Module, suffix: str) -> NDArray[np.number]:
        array = self._array(self._tensor(module, suffix))
        return self.files.layout.to_ours(module, array)

    def _mx(self, module: Module, suffix: str, rows: NDArray[np.number]) -> mx.array:
        return _to_mx(rows, self._tensor(module, suffix).dtype)


class _Mapped:
    """One safetensors file; its header has been checked by `open_model`."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        with source_errors(stamp.path), ExitStack() as opened:
            self._file = opened.enter_context(stamp.path.open("rb"))
            self.check()  # nothing empty can be mapped
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            opened.pop_all()

    def __enter__(self) -> "_Mapped":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()  # the map ends with the last array on it

    def check(self) -> None:
        self._stamp.check(self._file)

    def array(self, tensor: StoredTensor) -> NDArray[np.number]:
        entry, kind = tensor.entry, _NUMPY[tensor.dtype]
        flat = np.frombuffer(self._map, kind, prod(entry.shape), entry.start)
        return flat.reshape(entry.shape)

    def release(self, tensor: StoredTensor) -> None:
        start, end = tensor.entry.start, tensor.entry.end
        start -= start % mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and end > start:
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)


def _row_blocks(
    array: NDArray[np.number], expansion: int = 1
) -> Iterator[NDArray[np.number]]:
    row_bytes = max(1, array[:1].nbytes * expansion)
    step = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, len(array), step):
        yield array[start : start + step]


def _to_mx(array: NDArray[np.number], stored: str) -> mx.array:
    if stored == "F64":
        array = array.astype(np.float32)
    result = mx.array(np.ascontiguousarray(array))
    return result.view(mx.bfloat16) if stored == "BF16" else result


def _as_floats(array: mx.array, dtype: mx.Dtype) -> mx.array:
    """`array` in `dtype`, unless it is of packed integers."""
    return array if array.dtype in (mx.uint32, mx.uint8) else array.astype(dtype)


def finite(module: Module, array: mx.array) -> mx.array:
    """Return `array`; raises CheckpointError where it holds NaN or infinity."""
    if array.dtype not in (mx.uint32, mx.uint8) and not is_finite(array):
        why = "damaged, so fetch it again"
        if array.dtype == mx.float16:
            why = "damaged, or float16 too narrow for it: try bfloat16"
        raise CheckpointError(
            f"{module.path} holds NaN or infinite weights; the source is {why}"
        )
    return array
