"""The share of files in a pass of the network beside live streams."""

from collections import deque
from collections.abc import Sequence

from voxmlx.session import Session

__all__ = ["FileShare"]


class FileShare:
    """Files in turn, as many at a time as a pass of `pass_s` seconds holds.

    A pass over several reads the weights once for all, so more of them are better until
    it takes too long. What it takes differs by machine, model and how many ids each
    file speculates on, so it is measured: one file more where a pass had time left, half
    as many where it took too long. One file is always taken.
    """

    def __init__(self, pass_s: float) -> None:
        self._pass_s = pass_s
        self._n = 1
        self._n_chosen = 1
        self._recent_s: deque[float] = deque(maxlen=16)
        self._last: Session | None = None

    @property
    def expected_s(self) -> float:
        """Return the longest time of the last few passes, in seconds, within a bound."""
        return min(max(self._recent_s, default=0.0), 2 * self._pass_s)

    def choose(self, due: Sequence[Session]) -> list[Session]:
        """Return those of `due` whose turn it is; at least one."""
        first = due.index(self._last) + 1 if self._last in due else 0
        chosen = [*due[first:], *due[:first]][: self._n]
        self._n_chosen, self._last = len(chosen), chosen[-1]
        return chosen

    def passed(self, seconds: float) -> None:
        """Note how long the pass over those chosen last took."""
        self._recent_s.append(seconds)
        if seconds > self._pass_s:
            self._n = max(1, self._n_chosen // 2)
        elif seconds < self._pass_s / 2:
            self._n = self._n_chosen + 1
