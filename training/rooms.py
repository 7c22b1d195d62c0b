"""Impulse responses of rooms, desks and cars, the direct sound at the first sample."""

import numpy as np
from scipy import fft

from training.synthesis import SAMPLE_RATE

_METRES_PER_SECOND = 343.0
_N_REFLECTIONS = 4  # of each pair of walls, either way
_LONGEST = SAMPLE_RATE // 2

__all__ = ["desk", "in_room", "shoebox"]


def shoebox(rng: np.random.Generator) -> np.ndarray:
    """Return the response of a box-shaped room with random walls (image sources)."""
    room = rng.uniform((2.0, 2.0, 2.2), (9.0, 7.0, 3.6))
    speaker, microphone = rng.uniform(0.15, 0.85, (2, 3)) * room
    walls = rng.uniform(0.35, 0.9, (3, 2))  # share of amplitude that comes back
    if rng.random() < 0.5:  # close to the mouth
        microphone = speaker + (microphone - speaker) * rng.uniform(0.05, 0.2)
    at_axis, share_of_axis = [], []
    numbers = np.arange(-_N_REFLECTIONS, _N_REFLECTIONS + 1)
    for axis in range(3):
        # Mirrored an even and an odd number of times.
        even = 2 * numbers * room[axis] + speaker[axis]
        odd = 2 * numbers * room[axis] - speaker[axis]
        near, far = walls[axis]
        count = np.abs(numbers)
        at_axis.append(np.concatenate([even, odd]) - microphone[axis])
        odd_share = near ** np.abs(numbers - 1) * far**count
        share_of_axis.append(np.concatenate([near**count * far**count, odd_share]))
    x, y, z = np.meshgrid(*at_axis, indexing="ij")
    distance = np.sqrt(x**2 + y**2 + z**2).ravel()
    a, b, c = np.meshgrid(*share_of_axis, indexing="ij")
    share = (a * b * c).ravel()
    direct = float(distance.min())
    delay = ((distance - direct) / _METRES_PER_SECOND * SAMPLE_RATE).astype(int)
    is_heard = delay < _LONGEST
    response = np.bincount(
        delay[is_heard], (share * direct / distance)[is_heard], minlength=1
    )
    response[0] = 1
    return response.astype(np.float32)


def desk(rng: np.random.Generator) -> np.ndarray:
    """Return a few early echoes, as of a table, a screen or the inside of a car."""
    response = np.zeros(int(0.012 * SAMPLE_RATE), np.float32)
    at = rng.integers(4, len(response), rng.integers(1, 6))
    response[at] = rng.uniform(-0.6, 0.6, len(at))
    response[0] = 1
    return response


def in_room(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolve float32 samples [n] with a response; half of its tail is kept."""
    n_fft = fft.next_fast_len(len(samples) + len(response), real=True)
    wet = fft.irfft(fft.rfft(samples, n_fft) * fft.rfft(response, n_fft), n_fft)
    return wet[: len(samples) + len(response) // 2].astype(np.float32)
