"""Quantizes the tied embedding of a model while its file is read."""

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.errors import CheckpointError
from voxmlx.kernels.evaluation import evaluate
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.directory import ModelFiles, StoredTensor
from voxmlx.layouts.finite import refuse_infinite

__all__ = [
    "DEFAULT_EMBEDDING_BITS",
    "EMBEDDING",
    "EMBEDDING_BITS",
    "quantized_embedding",
    "with_quantized_embedding",
]

EMBEDDING = "decoder.embedding"

EMBEDDING_BITS = (16, 8, 6)
"""Bits that the embedding can be given at load; 16 leaves it as it is stored."""

# `benchmarks.embedding_bits`, 20 sounds: KL of 2e-5 nats, 2e-4 in 6 bits, which save
# another 0.1 GB a step. A model in 4 bits throughout costs about 1e-2.
DEFAULT_EMBEDDING_BITS = 8

_GROUP_SIZE = 64

# So much of the file is in memory at once.
_BLOCK_BYTES = 16 * 2**20

# bfloat16 is no NumPy type: its bits travel as integers.
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def with_quantized_embedding(files: ModelFiles, bits: int) -> ModelFiles:
    """Return `files` with an embedding of `bits`, where they leave it in a float type.

    Only beside quantized layers: there the embedding is the largest matrix of a step.
    The other files are returned as they are. Raises CheckpointError for bits that are
    none of EMBEDDING_BITS.
    """
    if bits not in EMBEDDING_BITS:
        raise CheckpointError(
            f"embedding_bits is {bits}, expected one of "
            f"{', '.join(map(str, EMBEDDING_BITS))}"
        )
    has_quantized_layers = any(
        p.startswith("decoder.layers.") for p in files.precisions
    )
    is_whole = files.modules[EMBEDDING].shape[1] % _GROUP_SIZE == 0
    if (
        bits == 16
        or EMBEDDING in files.precisions
        or not (has_quantized_layers and is_whole)
    ):
        return files
    precision = Precision(bits, _GROUP_SIZE)
    return replace(files, precisions={**files.precisions, EMBEDDING: precision})


def quantized_embedding(
    files: ModelFiles, precision: Precision, dtype: mx.Dtype
) -> dict[str, mx.array]:
    """Return the embedding's weight, scales and biases; the last two in `dtype`.

    The file is read a block of rows at a time, so neither the file's matrix nor a
    second copy of the result is ever in memory. Raises CheckpointError for NaN and
    infinity, and where the file cannot be read.
    """
    tensor = files.tensors[f"{EMBEDDING}.weight"]
    n_rows, dim = tensor.module.shape
    n_groups = dim // precision.group_size
    parts = (
        mx.zeros((n_rows, dim * precision.bits // 32), mx.uint32),
        mx.zeros((n_rows, n_groups), dtype),
        mx.zeros((n_rows, n_groups), dtype),
    )
    start = 0
    for rows in _blocks(tensor):
        block = _as_stored(rows, tensor.dtype).astype(dtype)
        refuse_infinite(tensor.name, block)
        stop = start + len(rows)
        quantized = mx.quantize(block, precision.group_size, precision.bits)
        for whole, part in zip(parts, quantized, strict=True):
            whole[start:stop] = part
        evaluate(parts)  # in place: nobody else has them
        start = stop
    return dict(zip(precision.suffixes, parts, strict=True))


def _blocks(tensor: StoredTensor) -> Iterator[NDArray[np.number]]:
    """Some rows [n, dim] of the stored matrix at a time, as its file has them."""
    n_rows, dim = tensor.entry.shape
    kind = np.dtype(_NUMPY[tensor.dtype])
    n_per_block = max(1, _BLOCK_BYTES // (dim * kind.itemsize))
    try:
        with tensor.path.open("rb") as file:
            file.seek(tensor.entry.start)
            for start in range(0, n_rows, n_per_block):
                shape = (min(n_per_block, n_rows - start), dim)
                rows = np.fromfile(file, kind, prod(shape))
                if rows.size != prod(shape):
                    raise CheckpointError(
                        f"{tensor.path} has become shorter while it was read; "
                        "fetch it again"
                    )
                yield rows.reshape(shape)
    except OSError as error:
        raise CheckpointError(f"{tensor.path} cannot be read ({error})") from None


def _as_stored(rows: NDArray[np.number], stored: str) -> mx.array:
    if stored == "F64":
        rows = rows.astype(np.float32)
    array = mx.array(cast("NDArray[np.float32]", rows))
    return array.view(mx.bfloat16) if stored == "BF16" else array
