"""GPTQ: rounds columns one after another, each making up for those before it.

With H = X^T X of a product's inputs, the output's squared error is tr(D H D^T) for an
error D of the weights. Rounding column c leaves an error; the columns after it move so
that together they undo as much of it as H lets them. With U the upper Cholesky factor
of H^-1 (H^-1 = U^T U) the move is -(error / U[c, c]) U[c, c:] (arXiv:2210.17323).

The scales of a group are searched when its first column is reached, on the moved
weights, and errors of columns with larger inputs count for more. `refinement.py` then
looks back at what was chosen.

Differences to `mlx_lm.quant.gptq`: scales by search and not over the whole range,
rounded to the stored type before codes are chosen; any number of bits; the embedding
too; one product's H in memory at a time.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from voxmlx.errors import CheckpointError
from voxmlx.kernels.evaluation import as_numpy
from voxmlx.layouts import Module, packed_path
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.finite import is_finite
from voxmlx.layouts.recipes import DtypeName

from . import tied_embedding
from .affine import Floats, Rounded
from .calibration import Calibration
from .refinement import refined
from .rounding import Nearest, Round, as_stored
from .search import nearest_codes, search
from .source import Source

__all__ = ["Gptq", "Inputs", "Search", "gptq"]

# Added to H's diagonal, as a share of its mean: for inputs never seen.
_DAMPING = 0.01

_LAST_NORM = "decoder.norm"

# A triangle of this size is inverted as any matrix.
_SMALL = 64


@dataclass(frozen=True, slots=True)
class Inputs:
    """Statistics of the inputs of a matrix with n columns."""

    hessian: Floats  # [n, n], damped; its diagonal has a mean of about 1
    factor: Floats  # [n, n], upper: the Cholesky factor of the inverse of H

    @property
    def importance(self) -> Floats:
        """Return the weight [n] of each column's own squared error."""
        return np.diag(self.hessian)

    @classmethod
    def of(cls, hessian: mx.array, damping: float = _DAMPING) -> "Inputs":
        """Make them of H = X^T X [n, n], float32. Raises CheckpointError."""
        if not is_finite(hessian):
            raise CheckpointError(
                "the squares of a product's inputs are too large for float32; the "
                "source is damaged, so fetch it again"
            )
        n = hessian.shape[0]
        damped = np.array(as_numpy(hessian), np.float32)
        mean = np.trace(damped, dtype=np.float64) / n
        damped /= np.float32(mean or 1)
        damped[np.diag_indices(n)] += np.float32(damping)
        # H = M M^T with M upper: reversed, that is an ordinary Cholesky factor. Then
        # H^-1 = M^-T M^-1, so U is the inverse of M: no inverse of H is needed.
        lower = np.linalg.cholesky(damped[::-1, ::-1])
        factor = np.ascontiguousarray(_inverse(lower)[::-1, ::-1])
        return cls(damped, factor)

    @classmethod
    def guessed(cls, blocks: Iterable[mx.array], norm: Floats) -> "Inputs":
        """Make them for the tied embedding, as `tied_embedding.guessed_hessian` has it."""
        with np.errstate(over="ignore", invalid="ignore"):
            hessian = tied_embedding.guessed_hessian(blocks, norm)
        return cls.of(hessian, tied_embedding.DAMPING)


def _inverse(lower: Floats) -> Floats:
    """The inverse of a lower triangle [n, n], by halves: nearly all is products."""
    n = len(lower)
    if n <= _SMALL:
        return np.linalg.inv(lower)
    half = n // 2
    result = np.zeros_like(lower)
    first = result[:half, :half] = _inverse(lower[:half, :half])
    last = result[half:, half:] = _inverse(lower[half:, half:])
    result[half:, :half] = -last @ (lower[half:, :half] @ first)
    return result


@np.errstate(divide="ignore", over="ignore", invalid="ignore")
def gptq(
    rows: Floats, inputs: Inputs, precision: Precision, dtype: DtypeName
) -> Rounded:
    """Round rows [n, columns] so that their product changes least."""
    moved = rows.copy()
    size, (n, columns) = precision.group_size, rows.shape
    codes = np.empty(rows.shape, np.uint8)
    scales, biases = (np.empty((n, columns // size), np.float32) for _ in range(2))
    for i, start in enumerate(range(0, columns, size)):
        part = slice(start, start + size)
        group = np.ascontiguousarray(moved[:, part])
        found = search(group, precision, dtype, inputs.importance[part])
        scale, bias = found.scales[:, 0], found.biases[:, 0]
        scales[:, i], biases[:, i] = scale, bias
        factor = inputs.factor[part, part]
        by_column = np.ascontiguousarray(group.T)  # [size, n]
        errors = np.empty_like(by_column)
        for j in range(size):
            column = by_column[j]
            code = nearest_codes(column, scale, bias, precision.bits)
            codes[:, start + j] = code.astype(np.uint8)
            errors[j] = (column - (code * scale + bias)) / factor[j, j]
            by_column[j + 1 :] -= np.outer(factor[j, j + 1 :], errors[j])
        moved[:, part.stop :] -= errors.T @ inputs.factor[part, part.stop :]
    found = Rounded(codes, scales, biases)
    return refined(rows, found, inputs.hessian, precision, dtype)


class Search:
    """Rounds to the scales and biases of the least squared error found.

    The tied embedding is rounded by `gptq`, its inputs guessed without any sound as
    `tied_embedding` says. On the demo, 3 bits, it alone costs 0.014 nats so, 0.028 by
    search alone, and 0.2 rounded to nearest.
    """

    def __init__(self, dtype: DtypeName) -> None:
        self._dtype: DtypeName = dtype
        self._nearest = Nearest(dtype)

    def begin(self, module: Module, precision: Precision, source: Source) -> Round:
        if precision.mode != "affine":
            return self._nearest.begin(module, precision, source)
        if module.kind != "embedding":
            return as_stored(
                module,
                precision,
                self._dtype,
                lambda rows: search(rows, precision, self._dtype),
            )
        norm = source.whole(source.files.modules[_LAST_NORM], "weight", mx.float32)
        blocks = source.blocks(module, mx.float32)
        inputs = Inputs.guessed(blocks, as_numpy(norm))
        return as_stored(
            module,
            precision,
            self._dtype,
            lambda rows: gptq(rows, inputs, precision, self._dtype),
        )


class Gptq:
    """Rounds each matrix by what its product has seen of the calibration sound."""

    def __init__(self, calibration: Calibration, dtype: DtypeName) -> None:
        self._calibration = calibration
        self._dtype: DtypeName = dtype
        self._search = Search(dtype)
        self._path: str | None = None
        self._inputs: Inputs | None = None

    def begin(self, module: Module, precision: Precision, source: Source) -> Round:
        if precision.mode != "affine" or ".ada." in module.path:
            # The delay's matrices run once per stream: nothing is known of inputs.
            return self._search.begin(module, precision, source)
        is_tied = module.kind == "embedding"
        if is_tied and not self._calibration.has_words:
            # What it sees is what was understood: a guess knows more.
            return self._search.begin(module, precision, source)
        damping = tied_embedding.DAMPING if is_tied else _DAMPING
        inputs = self._inputs_of(packed_path(module.path), damping)
        return as_stored(
            module,
            precision,
            self._dtype,
            lambda rows: gptq(rows, inputs, precision, self._dtype),
        )

    def _inputs_of(self, path: str, damping: float) -> Inputs:
        if self._inputs is None or path != self._path:
            self._inputs = None  # free it before the next is made
            self._inputs = Inputs.of(self._calibration.hessian(path), damping)
            self._path = path
        return self._inputs
