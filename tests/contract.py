"""Law 1, asserted once for every layer: chunking is not observable."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import mlx.core as mx
import numpy as np
from hypothesis import strategies as st

from voxmlx import Batch, Event, Session

__all__ = ["assert_chunking_is_not_observable", "cut", "piece_sizes", "said_together"]

S = TypeVar("S")

# One, empty, primes, and the neighbours of a mel hop and of an audio token.
AWKWARD_SIZES = (0, 1, 2, 3, 5, 7, 13, 159, 160, 161, 997, 1279, 1280, 1281, 2560)


def piece_sizes(total: int, sizes: Sequence[int] = AWKWARD_SIZES) -> st.SearchStrategy:
    """Lists of piece sizes; what they leave of `total` is one last piece."""
    return st.lists(st.sampled_from(sizes), max_size=24).filter(
        lambda chosen: sum(chosen) <= total
    )


def cut(x: np.ndarray, sizes: Sequence[int], axis: int = 0) -> list[np.ndarray]:
    """`x` in pieces of `sizes` along `axis`, the rest in one piece at the end."""
    return np.split(x, np.cumsum(sizes), axis=axis)


def assert_chunking_is_not_observable(
    step: Callable[[mx.array, S], mx.array],
    make_state: Callable[[], S],
    whole: np.ndarray,
    sizes: Sequence[int],
    atol: float,
) -> None:
    """Steps over pieces of `whole` [B, n, ...] give what one step over it gives."""
    expected = np.array(step(mx.array(whole), make_state()))
    state = make_state()
    parts = [np.array(step(mx.array(p), state)) for p in cut(whole, sizes, axis=1)]
    got = np.concatenate(parts, axis=1)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


def said_together(
    batch: Batch, sounds: Mapping[Session, np.ndarray]
) -> dict[Session, list[Event]]:
    """Step whole sounds through a batch; what each session says."""
    said: dict[Session, list[Event]] = {session: [] for session in sounds}
    for session, sound in sounds.items():
        batch.add(session)
        session.timeline.push(sound)
        session.timeline.end()
    while len(batch):
        for session, events in batch.step():
            said[session] += events
    return said
