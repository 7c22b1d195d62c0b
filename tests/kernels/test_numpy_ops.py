"""What NumPy computes without a GPU is what MLX computes."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.config import EOS_ID
from voxmlx.decoding.choosing import greedy, logits_of
from voxmlx.kernels import (
    add,
    concatenate,
    embedded,
    kernel_switches,
    positions,
    reshape,
    runs_in_numpy,
)
from voxmlx.kernels.switches import NUMPY

if mx.metal.is_available():
    pytest.skip("nothing runs in NumPy where there is a GPU", allow_module_level=True)


def numbers(*shape: int, seed: int = 0) -> mx.array:
    rng = np.random.default_rng(seed)
    return mx.array(rng.normal(size=shape).astype(np.float32))


X, Y, TABLE = numbers(2, 5, 8), numbers(2, 5, 8, seed=1), numbers(20, 8)
IDS = mx.array([[3, 0, 19], [7, 7, 1]], mx.int32)
LOGITS = numbers(4, 30)
OPERATIONS: dict[str, Callable[[], mx.array]] = {
    "all positions": lambda: positions(X, 0),
    "first positions": lambda: positions(X, 0, 3),
    "last positions": lambda: positions(X, 3),
    "no positions": lambda: positions(X, 5),
    "positions beyond the end": lambda: positions(X, 2, 9),
    "reshape": lambda: reshape(X, (2, 20, 2)),
    "add": lambda: add(X, Y),
    "concatenate": lambda: concatenate(X, Y),
    "embedded": lambda: embedded(IDS, TABLE),
    "greedy": lambda: greedy(LOGITS),
    "logits of ids": lambda: logits_of(mx.array([3, 0, 29, 2], mx.int32), LOGITS),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_numpy_gives_the_same_bits(name: str) -> None:
    assert not runs_in_numpy(X)
    expected = OPERATIONS[name]()
    with kernel_switches().trying(NUMPY):
        assert runs_in_numpy(X)
        found = OPERATIONS[name]()
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert np.array(found).tobytes() == np.array(expected).tobytes()


def test_the_end_of_the_sequence_is_never_chosen_by_numpy_either() -> None:
    logits = np.zeros((1, 30), np.float32)
    logits[0, EOS_ID], logits[0, 7] = 9, 1
    with kernel_switches().trying(NUMPY):
        assert greedy(mx.array(logits)).tolist() == [7]
    assert logits[0, EOS_ID] == 9


def test_a_nan_among_logits_is_seen_in_numpy_too() -> None:
    rows = np.full((2, 30), np.nan, np.float32)
    rows[1] = 0
    with kernel_switches().trying(NUMPY):
        logits = mx.array(rows)
        found = np.isfinite(np.array(logits_of(greedy(logits), logits)))
    assert found.tolist() == [False, True]


def test_what_numpy_chooses_from_is_left_as_it_is() -> None:
    logits = numbers(2, 30)
    before = np.array(logits).tobytes()
    with kernel_switches().trying(NUMPY):
        mx.eval(greedy(logits))
    assert np.array(logits).tobytes() == before
