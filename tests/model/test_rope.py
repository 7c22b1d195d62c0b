"""Angles are exact and relative wherever a stream is."""

import math
from fractions import Fraction

import numpy as np
import pytest

from voxmlx.model.rope import RotaryEmbedding

THETA, HEAD_DIM = 1e6, 128


def phasors(position: int, n: int = 1) -> np.ndarray:
    angles = RotaryEmbedding(HEAD_DIM, THETA).angles(np.array([position], np.uint64), n)
    return np.array(angles)[0, :, 0, 0].astype(np.complex128)  # [n, HEAD_DIM / 2]


@pytest.mark.parametrize("position", [0, 1, 8191, 180_000, 10**7])
def test_angles_match_exact_arithmetic(position: int) -> None:
    for i, got in enumerate(phasors(position)[0]):
        rate = Fraction(THETA ** (-2 * i / HEAD_DIM) / (2 * math.pi))
        turn = float(position * rate % 1)
        # float64 gives the rate to 1e-16, so position * 1e-16 angles are in doubt.
        assert abs(got - np.exp(2j * math.pi * turn)) < 2e-7 + position * 7e-16


@pytest.mark.parametrize("start", [10**6, 10**12, 2**63 - 5, 2**64 - 10])
def test_rotation_between_two_positions_depends_on_their_distance_alone(
    start: int,
) -> None:
    near, far = phasors(0, 20), phasors(start, 20)
    between_near = near[7:] * near[:-7].conj()
    between_far = far[7:] * far[:-7].conj()
    np.testing.assert_allclose(between_far, between_near, rtol=0, atol=5e-7)


def test_rows_have_positions_of_their_own() -> None:
    both = RotaryEmbedding(16, THETA).angles(np.array([3, 40], np.uint64), 2)
    alone = RotaryEmbedding(16, THETA).angles(np.array([40], np.uint64), 2)
    assert both.shape == (2, 2, 3, 1, 8)
    np.testing.assert_array_equal(np.array(both)[1], np.array(alone)[0])


def test_values_are_not_turned_and_queries_are_as_their_keys() -> None:
    angles = np.array(RotaryEmbedding(16, THETA, 4).angles(np.array([7], np.uint64), 3))
    assert angles.shape == (1, 3, 6, 1, 8)
    np.testing.assert_array_equal(angles[:, :, 5], 1)
    for group in range(4):
        np.testing.assert_array_equal(angles[:, :, group], angles[:, :, 4])
