"""Affine quantization as MLX stores it: codes, scales and biases, packed."""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.layouts.recipes import DtypeName

__all__ = [
    "Quantized",
    "Rounded",
    "dequantized",
    "next_stored",
    "pack",
    "packed",
    "stored",
]

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rounded:
    """Some rows of a matrix, rounded.

    codes [rows, columns]; scales and biases [rows, n_groups], exact in the stored
    type. A weight is scale * code + bias.
    """

    codes: Codes
    scales: Floats
    biases: Floats


@dataclass(frozen=True, slots=True)
class Quantized:
    """The three tensors of a quantized matrix, as MLX's kernels read them."""

    weight: mx.array  # [rows, columns * bits / 32] uint32
    scales: mx.array  # [rows, n_groups]
    biases: mx.array | None = None  # [rows, n_groups]; affine quantization has them


def dequantized(rounded: Rounded) -> Floats:
    """Return the weights [rows, columns] that `rounded` stands for."""
    n, n_groups = rounded.scales.shape
    codes = rounded.codes.reshape(n, n_groups, -1).astype(np.float32)
    grouped = codes * rounded.scales[..., None] + rounded.biases[..., None]
    return grouped.reshape(n, -1)


def stored(values: Floats, dtype: DtypeName) -> Floats:
    """Return `values` rounded to nearest even in `dtype`."""
    if dtype == "float32":
        return values
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(values).view(np.uint32)
    bits = bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def next_stored(values: Floats, steps: int, dtype: DtypeName) -> Floats:
    """Return the numbers of `dtype` that lie `steps` further from zero.

    `values` are numbers of `dtype` already.
    """
    if dtype == "float16":
        bits = values.astype(np.float16).view(np.int16) + np.int16(steps)
        return bits.view(np.float16).astype(np.float32)
    unit = 1 if dtype == "float32" else 1 << 16
    bits = np.ascontiguousarray(values).view(np.int32) + np.int32(steps * unit)
    return bits.view(np.float32)


def pack(codes: Codes, bits: int) -> NDArray[np.uint32]:
    """Return codes [rows, columns] as MLX packs them: [rows, columns * bits / 32].

    Each row is a stream of bits, the lowest first. Eight codes fill `bits` bytes.
    """
    rows, columns = codes.shape
    eights = codes.reshape(rows, columns // 8, 8)
    joined = np.zeros(eights.shape[:2], np.uint64)
    for i in range(8):
        joined |= eights[..., i].astype(np.uint64) << np.uint64(bits * i)
    by_byte = joined.astype("<u8").view(np.uint8).reshape(rows, columns // 8, 8)
    stream = np.ascontiguousarray(by_byte[..., :bits]).reshape(rows, -1)
    return stream.view("<u4")


def packed(rounded: Rounded, bits: int, dtype: DtypeName) -> Quantized:
    """Return the tensors that store `rounded`."""
    kind: mx.Dtype = getattr(mx, dtype)
    return Quantized(
        mx.array(pack(rounded.codes, bits)),
        mx.array(rounded.scales).astype(kind),
        mx.array(rounded.biases).astype(kind),
    )
