"""Guesses the inputs of the tied embedding's product where no sound is heard.

The last product gives each id's logit: its row of the embedding times what the last norm
makes of the stream. The stream begins with the row of the id before, and that norm
multiplies it by its weights. So inputs lie in the directions of rows times the norm's
weights.

Most steps choose PAD, and many of the others WORD. An error in these two rows shifts a
logit at every step, so their own directions count more than those of other ids. What
all rows have in common is taken out first: a shift of all logits changes no choice.

On the demo, two of three steps choose PAD. There the mean input has a cosine of 0.8 to
the row of PAD times the norm's weights, and of 0.4 to the row alone.
"""

from collections.abc import Iterable

import mlx.core as mx
import numpy as np

from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.kernels.evaluation import as_numpy

from .affine import Floats
from .products import gram

__all__ = ["DAMPING", "guessed_hessian"]

# Added to H's diagonal, as a share of its mean. It is more than other products have:
# the rows are read as inputs too, and there no direction counts more than another.
DAMPING = 0.1

# What each of PAD and WORD counts, where all rows together count 1.
_SHARE = 0.2


def guessed_hessian(blocks: Iterable[mx.array], norm: Floats) -> mx.array:
    """Return H [dim, dim], float32, up to a factor.

    `blocks` are the embedding's rows [n, dim] in order, some at a time. `norm` [dim]
    are the weights of the last norm.
    """
    dim, n_rows = len(norm), 0
    of_rows = np.zeros((dim, dim), np.float32)
    total = np.zeros(dim, np.float64)
    frequent: list[Floats] = []
    for block in blocks:
        rows = np.asarray(as_numpy(block.astype(mx.float32)))
        of_rows += as_numpy(gram([block]))
        total += rows.sum(0, dtype=np.float64)
        for token_id in (STREAMING_PAD_ID, STREAMING_WORD_ID):
            if n_rows <= token_id < n_rows + len(rows):
                frequent.append(np.array(rows[token_id - n_rows]))
        n_rows += len(rows)
    mean = (total / max(n_rows, 1)).astype(np.float32)
    result = _of_trace_one(of_rows * _outer(norm))
    for row in frequent:
        direction = np.multiply(norm, row - mean, dtype=np.float32)
        result += np.float32(_SHARE) * _of_trace_one(_outer(direction))
    return mx.array(result)


def _outer(vector: Floats) -> Floats:
    return np.outer(vector, vector).astype(np.float32, copy=False)


def _of_trace_one(matrix: Floats) -> Floats:
    trace = np.trace(matrix, dtype=np.float64)
    return matrix / np.float32(trace) if trace > 0 else matrix
