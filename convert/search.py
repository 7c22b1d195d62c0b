"""Searches each group's scale and bias for the least squared error.

`mx.quantize` spreads the codes over a group's whole range, and chooses codes before it
rounds scale and bias. Both cost accuracy. Here every group tries several narrower
ranges. Each is fitted by least squares to the codes that it leads to. The best few are
fitted further, then rounded to the stored type, and only then the codes are chosen.

Example, 4 bits: a group from -1.0 to 1.2 has steps of 0.147 over its whole range. Over
0.84 of it steps are 0.123: two weights at the ends are off by 0.1 more, sixty are off
by a sixth less.

Invariants: the result never has a larger squared error than the range of `mx.quantize`
with codes chosen after the rounding. It does not depend on how a matrix is divided.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxmlx.layouts.configs import Precision
from voxmlx.layouts.recipes import DtypeName

from .affine import Floats, Rounded, next_stored, stored

__all__ = ["full_ranges", "nearest_codes", "search"]

# Groups worked on at once by a thread: [64, 8192] float32 are 2 MB. With fewer, threads
# wait for each other's turn in Python: 512 take five times as long on two cores.
_TILE = 8192

# Per bits: how many ranges each end tries, and the narrowest. Fewer bits gain from
# narrower ranges; eight gain from the rounding order alone. Measured on Gaussian and
# Student-t weights against 16 x 16 ranges, which gain less than 1 % more.
_STARTS = {
    2: (5, 0.5),
    3: (5, 0.55),
    4: (5, 0.8),
    5: (5, 0.85),
    6: (4, 0.9),
    8: (2, 0.98),
}
_N_KEPT = 2  # ranges that are fitted further
_N_FITS = 5
_STEPS = (0, -1, 1)  # neighbors of the rounded scale to try

_SMALLEST = np.float32(1e-7)  # of a scale, as in MLX


class _Fit(NamedTuple):
    """Scales and biases [n], and the squared errors [n] of the codes they fit."""

    scales: Floats
    biases: Floats
    errors: Floats


def full_ranges(groups: Floats, bits: int) -> tuple[Floats, Floats]:
    """Return the scales and biases [n] that `mx.quantize` gives groups [size, n]."""
    low, high = groups.min(0), groups.max(0)
    is_low = np.abs(low) > np.abs(high)
    scales = np.maximum((high - low) / np.float32(2**bits - 1), _SMALLEST)
    scales = np.where(is_low, scales, -scales)
    edges = np.where(is_low, low, high)
    codes = np.rint(edges / scales)
    has_code = codes != 0
    scales = np.where(has_code, edges / np.where(has_code, codes, 1), scales)
    return scales, np.where(has_code, edges, np.float32(0))


def nearest_codes(
    groups: Floats, scales: Floats, biases: Floats, bits: int, out: Floats | None = None
) -> Floats:
    """Return the code [size, n] nearest to each weight, as floats."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        inverse = np.float32(1) / scales
        inverse = np.where(np.isfinite(inverse), inverse, np.float32(0))
    codes = np.multiply(groups, inverse, out=out)
    codes -= biases * inverse
    np.rint(codes, out=codes)
    return np.clip(codes, np.float32(0), np.float32(2**bits - 1), out=codes)


def search(
    rows: Floats, precision: Precision, dtype: DtypeName, weights: Floats | None = None
) -> Rounded:
    """Round rows [n, columns] with the least squared error found.

    `weights` [columns] say how much the error of each column matters.
    """
    size, (n, columns) = precision.group_size, rows.shape
    groups = rows.reshape(-1, size)
    codes = np.empty(groups.shape, np.uint8)
    scales, biases = (np.empty(len(groups), np.float32) for _ in range(2))
    per_row = columns // size
    by_group = None if weights is None else weights.reshape(per_row, size)

    def tile(start: int) -> None:
        part = slice(start, start + _TILE)
        chosen = None
        if by_group is not None:
            index = np.arange(start, min(start + _TILE, len(groups))) % per_row
            chosen = np.ascontiguousarray(by_group[index].T)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            found = _Tile(np.ascontiguousarray(groups[part].T), precision.bits, chosen)
            scales[part], biases[part], best = found.search(dtype)
        codes[part] = best.T

    with ThreadPoolExecutor(_n_threads()) as pool:
        for _ in pool.map(tile, range(0, len(groups), _TILE)):
            pass
    shape = n, per_row
    return Rounded(
        codes.reshape(n, columns), scales.reshape(shape), biases.reshape(shape)
    )


def _n_threads() -> int:
    return os.cpu_count() or 1


class _Tile:
    """Groups [size, n] side by side, so that sums over a group run along them."""

    def __init__(self, groups: Floats, bits: int, weights: Floats | None) -> None:
        self._groups, self._bits, self._weights = groups, bits, weights
        self._codes = np.empty_like(groups)
        weighted = groups if weights is None else groups * weights
        self._n = np.float32(len(groups)) if weights is None else weights.sum(0)
        self._mean = weighted.sum(0) / self._n
        # Sums of centered weights: what is left of large numbers would be noise.
        self._centered = groups - self._mean
        self._total = self._dot(self._centered, self._centered)

    def search(self, dtype: DtypeName) -> tuple[Floats, Floats, NDArray[np.uint8]]:
        """Return scales, biases [n] as stored, and codes [size, n]."""
        kept = self._kept()
        full = full_ranges(self._groups, self._bits)
        scales, biases = (stored(part, dtype) for part in full)
        errors = self._errors(scales, biases)
        for fit in kept:
            for _ in range(_N_FITS):
                fit = self._fitted(fit.scales, fit.biases)
            for candidate in self._stored_candidates(fit, dtype):
                is_better = candidate.errors < errors
                errors = np.where(is_better, candidate.errors, errors)
                scales = np.where(is_better, candidate.scales, scales)
                biases = np.where(is_better, candidate.biases, biases)
        codes = nearest_codes(self._groups, scales, biases, self._bits)
        return scales, biases, codes.astype(np.uint8)

    def _kept(self) -> list[_Fit]:
        """The best starts of each group, each fitted once."""
        n = self._groups.shape[1]
        nothing = np.full(n, np.inf, np.float32)
        scales, biases = full_ranges(self._groups, self._bits)
        kept = [_Fit(scales, biases, nothing) for _ in range(_N_KEPT)]
        for scales, biases in self._starts():
            fit = self._fitted(scales, biases)
            for i, better in enumerate(kept):
                is_better = fit.errors < better.errors
                kept[i] = _chosen(is_better, fit, better)
                fit = _chosen(is_better, better, fit)
        return kept

    def _starts(self) -> Iterator[tuple[Floats, Floats]]:
        low, high = self._groups.min(0), self._groups.max(0)
        n, narrowest = _STARTS[self._bits]
        shares = np.linspace(1, narrowest, n, dtype=np.float32)
        for lower, upper in product(shares, shares):
            start = low * lower
            step = (high * upper - start) / np.float32(2**self._bits - 1)
            yield np.maximum(step, _SMALLEST), start

    def _fitted(self, scales: Floats, biases: Floats) -> _Fit:
        """The least squares line through the codes that these lead to."""
        codes = self._chosen_codes(scales, biases)
        mean = self._sum(codes) / self._n
        covariance = self._dot(codes, self._centered)
        variance = self._dot(codes, codes) - self._n * mean * mean
        has_line = variance > np.float32(1e-3) * self._n / len(codes)
        fitted = np.where(has_line, covariance / variance, scales)
        errors = np.where(has_line, self._total - covariance * fitted, self._total)
        return _Fit(fitted, self._mean - fitted * mean, errors)

    def _stored_candidates(self, fit: _Fit, dtype: DtypeName) -> Iterator[_Fit]:
        rounded = stored(fit.scales, dtype)
        for steps in _STEPS:
            scales = next_stored(rounded, steps, dtype)
            codes = self._chosen_codes(scales, fit.biases)
            biases = stored(self._mean - scales * self._sum(codes) / self._n, dtype)
            yield _Fit(scales, biases, self._errors(scales, biases))

    def _errors(self, scales: Floats, biases: Floats) -> Floats:
        errors = self._chosen_codes(scales, biases)
        errors *= scales
        errors += biases
        errors -= self._groups
        # A scale that is no number must never win.
        return np.nan_to_num(self._dot(errors, errors), nan=np.inf)

    def _chosen_codes(self, scales: Floats, biases: Floats) -> Floats:
        return nearest_codes(self._groups, scales, biases, self._bits, self._codes)

    def _sum(self, values: Floats) -> Floats:
        if self._weights is None:
            return values.sum(0)
        return np.einsum("ij,ij->j", values, self._weights)

    def _dot(self, a: Floats, b: Floats) -> Floats:
        if self._weights is None:
            return np.einsum("ij,ij->j", a, b)
        return np.einsum("ij,ij,ij->j", a, b, self._weights)


def _chosen(is_first: NDArray[np.bool_], first: _Fit, second: _Fit) -> _Fit:
    return _Fit(*(np.where(is_first, a, b) for a, b in zip(first, second, strict=True)))
