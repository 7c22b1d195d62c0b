"""The share of files in a pass of the network beside live streams."""

from collections import deque
from collections.abc import Iterable, Sequence

from voxmlx.session import Session

__all__ = ["FileShare"]

# Files that got nothing for so long come before live streams, once.
_PATIENCE_S = 2.0

# How long after its time live sound is still waited for.
_LATE_S = 0.03


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
        self._served_at = 0.0

    @property
    def expected_s(self) -> float:
        """Return the longest time of the last few passes, in seconds, within a bound."""
        return min(max(self._recent_s, default=0.0), 2 * self._pass_s)

    def is_starving(self, now: float) -> bool:
        """Return whether files have waited so long that they come first."""
        return now - self._served_at > _PATIENCE_S

    def pause_s(self, now: float, expected: Iterable[float | None]) -> float:
        """Return how long files wait, so that no pass of theirs meets a live step.

        `expected` says when the next audio token of each live stream should be whole.
        """
        if self.is_starving(now):
            return 0.0
        pauses = (
            at + _LATE_S - now
            for at in expected
            if at is not None and at - self.expected_s < now < at + _LATE_S
        )
        return max(pauses, default=0.0)

    def begin(self, now: float) -> None:
        """Note that a pass for files begins."""
        self._served_at = now

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
