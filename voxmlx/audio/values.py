"""The values that a sample may have."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_LEVEL", "are_in_bounds", "first_beyond", "first_not_finite"]

# Full scale is 1. A clipped mix or an over-driven decoder stays within a few times
# that (18 dB); whole numbers that were cast to float do not.
MAX_LEVEL = 8.0


def are_in_bounds(samples: NDArray[np.floating]) -> bool:
    """Return whether all samples are finite and not far beyond full scale."""
    if not samples.size:
        return True
    # NaN is in no order, and comes out of both.
    return bool(samples.min() >= -MAX_LEVEL and samples.max() <= MAX_LEVEL)


def first_not_finite(samples: NDArray[np.floating]) -> int | None:
    """Return the index of the first NaN or infinite sample of [n]; None if all are well."""
    finite = np.isfinite(samples)
    return None if finite.all() else int(np.argmin(finite))


def first_beyond(samples: NDArray[np.floating]) -> int | None:
    """Return the index of the first sample of [n] far beyond full scale, if any."""
    beyond = np.abs(samples) > MAX_LEVEL
    return int(np.argmax(beyond)) if beyond.any() else None
