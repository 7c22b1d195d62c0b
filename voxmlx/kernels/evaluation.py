"""MLX's evaluation and NumPy's view of arrays, with types that MLX's stubs lack."""

from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

__all__ = ["as_numpy", "evaluate", "evaluate_async"]


def evaluate(*trees: object) -> None:
    """Compute arrays, or all of a tree of them, and wait."""
    mx.eval(*trees)  # pyright: ignore[reportUnknownMemberType] -- MLX's stub


def evaluate_async(*trees: object) -> None:
    """Begin to compute arrays, or all of a tree of them, and do not wait."""
    mx.async_eval(*trees)  # pyright: ignore[reportUnknownMemberType] -- MLX's stub


def as_numpy(array: mx.array) -> NDArray[Any]:
    """Return an array as NumPy sees it, without a copy; waits for it."""
    return np.array(array, copy=False)  # pyright: ignore[reportUnknownVariableType]
