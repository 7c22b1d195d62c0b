"""Damage inside a file, told spot by spot."""

from collections.abc import Iterator
from fractions import Fraction

from voxmlx.audio.placing import Placed
from voxmlx.events import SoundWarning

__all__ = ["DamagedSpots", "duration_text"]

# Damaged spots that are told one by one, and how far apart they are two.
_MAX_TOLD = 10
_SAME_SPOT_S = 1.0


class DamagedSpots:
    """Says where sound was lost: each spot once, and not too many of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._n_spots = 0
        self._last_s: float | None = None
        self._gap_s = Fraction(0)

    def told(self, placed: Placed, at_s: Fraction) -> Iterator[SoundWarning]:
        if placed.is_gap:
            self._gap_s += Fraction(len(placed.samples), placed.rate)
            return
        gap_s, self._gap_s = self._gap_s, Fraction(0)
        if not placed.n_lost and not gap_s:
            return
        begin_s = float(at_s - gap_s)
        last_s, self._last_s = self._last_s, float(at_s)
        if last_s is not None and begin_s - last_s < _SAME_SPOT_S:
            return
        self._n_spots += 1
        if self._n_spots <= _MAX_TOLD:
            lost = f"{duration_text(gap_s)} of it became silence" if gap_s else "little"
            what = (
                f"{self._name} is damaged at {begin_s:.3f} s: {lost}"
                if placed.n_lost
                else f"{self._name} holds no sound from {begin_s:.3f} s for "
                f"{duration_text(gap_s)}: that became silence"
            )
            code = "damaged" if placed.n_lost else "gap"
            yield SoundWarning(code, what, int(begin_s * 1000))

    def flush(self, end_s: Fraction) -> Iterator[SoundWarning]:
        if self._n_spots > _MAX_TOLD:
            yield SoundWarning(
                "damaged",
                f"{self._name} is damaged at {self._n_spots} places, of which the first "
                f"{_MAX_TOLD} were named",
                int(end_s * 1000),
            )


def duration_text(seconds: Fraction) -> str:
    """Return a duration in words: 20 ms, 1.500 s."""
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    return f"{float(seconds):.3f} s"
