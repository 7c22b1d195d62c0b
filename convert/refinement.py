"""Moves codes, scales and biases that are chosen already to a lower output error.

With D the error of the weights and H = X^T X of a product's inputs, the output's squared
error is tr(D H D^T). GPTQ never looks back at a column. Here each group is visited again:

    line     scale and bias move to the least error that their stored type allows
    codes    column by column, each code moves to the one with the least error

Invariant: no step raises the error of any row. On the demo two sweeps lower it by 5 to
15 % after GPTQ.
"""

import numpy as np

from voxmlx.layouts.configs import Precision
from voxmlx.layouts.recipes import DtypeName

from .affine import Floats, Rounded, dequantized, stored

__all__ = ["refined"]

_SWEEPS = 2


def refined(
    rows: Floats,
    rounded: Rounded,
    hessian: Floats,
    precision: Precision,
    dtype: DtypeName,
) -> Rounded:
    """Return `rounded` rows [n, columns] with no larger error after H [columns, columns].

    H is damped already, so its diagonal is positive.
    """
    size = precision.group_size
    top = np.float32(2**precision.bits - 1)
    codes = rounded.codes.copy()
    scales, biases = rounded.scales.copy(), rounded.biases.copy()
    errors = dequantized(rounded) - rows
    # Half the gradient of each row's error.
    slopes = (errors @ hessian).astype(np.float32, copy=False)
    for _ in range(_SWEEPS):
        for i, start in enumerate(range(0, rows.shape[1], size)):
            part = slice(start, start + size)
            group = _Group(
                np.ascontiguousarray(rows[:, part].T),
                codes[:, part].T.astype(np.float32),
                scales[:, i],
                biases[:, i],
                np.ascontiguousarray(slopes[:, part].T),
                np.ascontiguousarray(hessian[part, part]),
            )
            group.move_line(dtype)
            group.move_codes(top)
            codes[:, part] = group.codes.T.astype(np.uint8)
            scales[:, i], biases[:, i] = group.scales, group.biases
            moved = group.errors.T
            slopes += (moved - errors[:, part]) @ hessian[part]
            errors[:, part] = moved
    return Rounded(codes, scales, biases)


class _Group:
    """One group of each row: [size, n] columns of weights, codes, errors and slopes."""

    def __init__(
        self,
        weights: Floats,
        codes: Floats,
        scales: Floats,
        biases: Floats,
        slopes: Floats,
        hessian: Floats,
    ) -> None:
        self._weights, self._slopes, self._hessian = weights, slopes, hessian
        self.codes, self.scales, self.biases = codes, scales, biases
        self.errors = codes * scales + biases - weights

    def move_line(self, dtype: DtypeName) -> None:
        """Move scale and bias together, where that lowers the error as stored."""
        through = self._hessian @ self.codes
        of_codes = np.einsum("ij,ij->j", self.codes, through)
        between, of_ones = through.sum(0), self._hessian.sum()
        along = np.einsum("ij,ij->j", self.codes, self._slopes)
        level = self._slopes.sum(0)
        determinant = of_codes * of_ones - between * between
        is_line = determinant > 1e-6 * of_codes * of_ones
        step = (between * level - of_ones * along) / np.where(is_line, determinant, 1)
        scales = stored(
            np.where(is_line, self.scales + step, self.scales).astype(np.float32), dtype
        )
        step = scales - self.scales
        # The best bias for the scale that is stored, not for the exact one.
        wanted = self.biases - (level + step * between) / of_ones
        biases = stored(wanted.astype(np.float32), dtype)
        shift = biases - self.biases
        change = (
            2 * (step * along + shift * level)
            + step * step * of_codes
            + 2 * step * shift * between
            + shift * shift * of_ones
        )
        is_better = (change < 0) & np.isfinite(scales) & np.isfinite(biases)
        self.scales = np.where(is_better, scales, self.scales)
        self.biases = np.where(is_better, biases, self.biases)
        errors = self.codes * self.scales + self.biases - self._weights
        self._slopes += self._hessian @ (errors - self.errors)
        self.errors = errors

    def move_codes(self, top: np.float32) -> None:
        """Move the codes of one column after the other."""
        has_step = self.scales != 0
        inverse = np.where(has_step, 1 / np.where(has_step, self.scales, 1), 0)
        for j, weights in enumerate(self._weights):
            own = self._hessian[j, j]
            wanted = weights + self.errors[j] - self._slopes[j] / own
            codes = np.clip(np.rint((wanted - self.biases) * inverse), 0, top)
            step = codes * self.scales + self.biases - weights - self.errors[j]
            is_better = 2 * step * self._slopes[j] + step * step * own < 0
            step = np.where(is_better, step, np.float32(0))
            self.codes[j] = np.where(is_better, codes, self.codes[j])
            self.errors[j] += step
            self._slopes += np.outer(self._hessian[:, j], step)
