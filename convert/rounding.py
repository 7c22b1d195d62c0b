"""Ways to round a matrix to few bits: nearest, by search, by GPTQ, by DWQ."""

from collections.abc import Callable
from typing import Literal, Protocol, get_args

import mlx.core as mx
import numpy as np

from voxmlx.errors import CheckpointError
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

# The largest weight of the modes that have no scales to choose. MLX makes 0 or infinity
# of larger ones.
_LARGEST = {"nvfp4": 448.0 * 6.0, "mxfp4": 2.0**127, "mxfp8": 2.0**127}

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
            rows = finite(module, rows.astype(self._dtype))
            _check_size(module, precision, rows)
            parts = mx.quantize(
                rows,
                group_size=precision.group_size,
                bits=precision.bits,
                mode=precision.mode,
            )
            evaluate(parts)
            for part in parts[1:]:
                finite(module, part)
            return Quantized(*parts)

        return quantize


def _check_size(module: Module, precision: Precision, rows: mx.array) -> None:
    """Raises CheckpointError where the mode cannot store a weight of `rows`."""
    limit = _LARGEST.get(precision.mode)
    if limit is None:
        return
    largest = float(np.abs(as_numpy(rows.astype(mx.float32))).max(initial=0))
    if largest > limit:
        raise CheckpointError(
            f"{module.path} has a weight of {largest:.3g}, {precision.mode} stores at "
            f"most {limit:.5g}; the source is damaged, or needs another recipe"
        )


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
