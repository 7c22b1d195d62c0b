"""The drift of a device's clock against the computer's, by when its sound arrives."""

from collections import deque

__all__ = ["MAX_DRIFT", "ClockDrift"]

MAX_DRIFT = 500e-6
"""No sound device is further off: 500 ppm, 1.8 s in an hour."""

# Of so many seconds the least late block counts. A device that gives nothing for longer
# than 3 s is taken for gone (`microphone.py`).
_WINDOW_S = 5.0
# Windows that the line is drawn through: two minutes. A line through few says little.
_N_WINDOWS, _MIN_WINDOWS = 24, 4
# Sound that stays away for two windows was lost. Less is taken for a device that waits
# longer than before.
_LOST_S = 0.1


class ClockDrift:
    """A line through the lateness of a device's sound: the clock's time less its own.

    Sound never comes early, but it may wait anywhere on its way. So of every 5 s only
    the least late block counts, and a line through the last two minutes of these says
    how late sound is by the device's clock alone. Example: blocks come 10 to 60 ms
    late, and the device loses 0.36 s in an hour. The line then begins at 10 ms and rises
    by 100 ppm.

    It reads no clock: times are handed in, in seconds from any beginning.
    """

    def __init__(self) -> None:
        self._windows: deque[tuple[float, float]] = deque(maxlen=_N_WINDOWS)
        self._began = 0.0
        self._least: tuple[float, float] | None = None

    @property
    def rate(self) -> float:
        """Return how much lateness grows in a second: 1e-4 is a device 100 ppm slow."""
        if len(self._windows) < _MIN_WINDOWS:
            return 0.0
        time_s, late_s = self._means()
        spread = sum((at - time_s) ** 2 for at, _ in self._windows)
        slope = sum((at - time_s) * (late - late_s) for at, late in self._windows)
        return max(-MAX_DRIFT, min(MAX_DRIFT, slope / spread))

    def observe(self, sound_s: float, time_s: float) -> None:
        """Note that the clock said `time_s` when `sound_s` of sound had come in all."""
        lateness = time_s - sound_s
        if self._least is None:
            self._began, self._least = time_s, (time_s, lateness)
        elif time_s - self._began >= _WINDOW_S:
            self._windows.append(self._least)
            self._began, self._least = time_s, (time_s, lateness)
        elif lateness < self._least[1]:
            self._least = (time_s, lateness)

    def lateness_s(self, time_s: float) -> float:
        """Return how late sound is at a time, by the line; 0 before anything was heard."""
        if not self._windows:
            return 0.0 if self._least is None else self._least[1]
        if len(self._windows) < _MIN_WINDOWS:
            return min(late for _, late in self._windows)
        middle_s, late_s = self._means()
        return late_s + self.rate * (time_s - middle_s)

    def take_lost_s(self) -> float:
        """Return how much sound the device has lost since the last call, in seconds.

        Its owner puts as much silence in its place, and counts it as sound.
        """
        if len(self._windows) <= _MIN_WINDOWS:
            return 0.0
        latest = [self._windows.pop(), self._windows.pop()]
        lost = [late - self.lateness_s(at) for at, late in latest]
        if min(lost) > _LOST_S and abs(lost[0] - lost[1]) < _LOST_S / 2:
            self._least = None  # it was late by as much
            return min(lost)
        self._windows.extend(reversed(latest))
        return 0.0

    def _means(self) -> tuple[float, float]:
        n = len(self._windows)
        return (
            sum(at for at, _ in self._windows) / n,
            sum(late for _, late in self._windows) / n,
        )
