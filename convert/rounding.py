"""Ways to round a matrix to few bits: nearest, by search, by GPTQ, by DWQ."""

from collections.abc import Callable
from typing import Literal, Protocol, get_args

import mlx.core as mx

from voxmlx.kernels.evaluation import as_numpy, evaluate
from voxmlx.layouts import Module
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.recipes import DtypeName

from .affine import Floats, Quantized, Rounded, packed
from .source import Source, finite

__all__ = [
    "CALIBRATED",
    "DEFAULT_ROUNDING",
    "ROUNDINGS",
    "Nearest",
    "Round",
    "Rounder",
    "RoundingName",
    "as_stored",
]

RoundingName = Literal["nearest", "search", "gptq", "dwq"]
ROUNDINGS: tuple[RoundingName, ...] = get_args(RoundingName)
DEFAULT_ROUNDING: RoundingName = "search"
# These listen to sound of the user's.
CALIBRATED: frozenset[RoundingName] = frozenset({"gptq", "dwq"})

# Rows [n, columns] of a matrix -> the tensors to store for them.
Round = Callable[[mx.array], Quantized]


class Rounder(Protocol):
    """Knows how to round each matrix of a model, one after another in file order."""

    def begin(self, module: Module, precision: Precision, source: Source) -> Round:
        """Return what rounds the rows of `module` of `source`, some at a time."""
        ...


class Nearest:
    """Rounds as `mx.quantize` does; the only way for modes other than affine."""

    def __init__(self, dtype: DtypeName) -> None:
        self._dtype: mx.Dtype = getattr(mx, dtype)

    def begin(self, module: Module, precision: Precision, source: Source) -> Round:
        def quantize(rows: mx.array) -> Quantized:
            parts = mx.quantize(
                finite(module, rows.astype(self._dtype)),
                group_size=precision.group_size,
                bits=precision.bits,
                mode=precision.mode,
            )
            evaluate(parts)
            return Quantized(*parts)

        return quantize


def as_stored(
    module: Module,
    precision: Precision,
    dtype: DtypeName,
    rounded: Callable[[Floats], Rounded],
) -> Round:
    """Return `rounded` as MLX's arrays.

    What it returns raises CheckpointError where a scale is too large for `dtype`.
    """

    def quantize(rows: mx.array) -> Quantized:
        floats = as_numpy(rows.astype(mx.float32))
        result = packed(rounded(floats), precision.bits, dtype)
        finite(module, result.scales)
        if result.biases is not None:
            finite(module, result.biases)
        return result

    return quantize
