"""Guesses for silence: that nothing is due."""

from collections.abc import Iterable

from voxmlx.config import STREAMING_PAD_ID
from voxmlx.decoding.speculation import MAX_POSITIONS, Speculation

__all__ = ["PadGuesses"]


class PadGuesses:
    """Guesses PAD for every position of a quiet block, so that one pass verifies all.

    No clock decides: a block of silence always takes one pass, which reads the weights
    once. `speculation`, if there is one, goes on learning from the ids.
    """

    def __init__(self, speculation: Speculation | None = None) -> None:
        self._speculation = speculation

    def guess(self, n: int) -> list[int]:
        """Return n PADs, as far as one pass verifies them."""
        return [STREAMING_PAD_ID] * min(n, MAX_POSITIONS - 1)

    def now(self) -> float | None:
        """Return None: passes are not timed."""
        return None

    @property
    def n_unread(self) -> int:
        """Return 1: what follows a wrong guess is verified at once."""
        return 1

    def observe(self, ids: Iterable[int]) -> None:
        """The ids that came next."""
        if self._speculation is not None:
            self._speculation.observe(ids)

    def passed(self, n_positions: int, n_chosen: int, seconds: float | None) -> None:
        """Count nothing: the figures are of guesses that were weighed."""
