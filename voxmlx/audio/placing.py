"""Decoded blocks -> sound without holes, each sample at the time its container says.

A track that starts late begins with silence, and a gap becomes silence. States:

- contiguous: a block stands where the one before it ended, within a tolerance.
- held: a block claims another time. The next block decides. If it follows the held
  one, the claim was right: a gap becomes silence, a step back is a new begin of the
  container's time, and no sound is dropped. Otherwise the stamp was wrong.

Example: blocks of 0.02 s at 0.00, 0.02, 1.04, 1.06 s give one second of silence
after 0.04 s, once the block at 1.06 s confirms it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from voxmlx.audio.decoder import Clock, Decoded, Lost

__all__ = ["Placed", "Placer"]

# Time stamps in milliseconds, and those of a browser's recorder, are off by less.
_JITTER_S = Fraction(1, 10)
# Where stamps count samples, or packets are known to be lost.
_EXACT_S = Fraction(1, 200)

# A longer silence is not believed, where nothing says how long the container is.
_MAX_GAP_S = 60
# Where time stamps may start anew, a longer step is taken for that.
_MAX_STEP_S = 10

_SILENCE_S = 1


@dataclass(frozen=True, slots=True)
class Placed:
    """Samples [n, channels] that follow those before; `is_gap`: silence for none.

    `n_lost` packets before them could not be decoded.
    """

    samples: np.ndarray
    rate: int
    is_gap: bool = False
    n_lost: int = 0

    def cut(self, start: int, end: int | None) -> "Placed":
        """Return a part of it."""
        n_lost = 0 if start else self.n_lost
        return Placed(self.samples[start:end], self.rate, self.is_gap, n_lost)


class Placer:
    """One stream's blocks on their way to where they belong."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Where the next sample stands, in seconds of the sound and of the container.
        self.position_s = Fraction(0)
        self._expected_s: Fraction | None = None
        self._held: Decoded | None = None
        self._n_lost = 0
        self._lost_s = Fraction(0)

    def place(self, blocks: Iterable[Decoded | Lost]) -> Iterator[Placed]:
        for block in blocks:
            if isinstance(block, Lost):
                self._n_lost += 1
                self._lost_s += block.duration_s
            elif self._expected_s is None:
                yield from self._first(block)
            else:
                yield from self._next(block)
        if self._held is not None:
            held, self._held = self._held, None
            yield self._emit(held)

    @property
    def n_lost_at_end(self) -> int:
        """Return how many packets were lost since the last block."""
        return self._n_lost

    def _first(self, block: Decoded) -> Iterator[Placed]:
        if block.time_s is None:
            self._expected_s = Fraction(0)
            yield self._emit(block)
            return
        late_s = block.time_s - self._clock.begin_s
        if self._n_lost == 0:
            # What a decoder leaves out at its start is no sound of the track.
            late_s -= block.lead_s
        self._expected_s = block.time_s
        if self._is_believable(late_s, block.time_s):
            yield from self._silence(late_s, block, is_gap=False)
        yield self._emit(block)

    def _next(self, block: Decoded) -> Iterator[Placed]:
        if self._held is not None:
            held, self._held = self._held, None
            assert held.time_s is not None
            assert self._expected_s is not None
            after_s = held.time_s + Fraction(len(held.samples), held.rate)
            is_confirmed = (
                block.time_s is not None and abs(block.time_s - after_s) <= _JITTER_S
            )
            if is_confirmed:
                gap_s = held.time_s - self._expected_s
                if self._is_believable(gap_s, held.time_s):
                    yield from self._silence(gap_s, held)
                self._expected_s = held.time_s
            yield self._emit(held)
        assert self._expected_s is not None
        if block.time_s is None:
            yield self._emit(block)
            return
        step_s = block.time_s - self._expected_s
        if self._n_lost and _EXACT_S < step_s <= self._lost_s + _JITTER_S:
            yield from self._silence(step_s, block)
            self._expected_s = block.time_s
            yield self._emit(block)
        elif abs(step_s) <= (_EXACT_S if self._clock.is_exact else _JITTER_S):
            yield self._emit(block)
        else:
            self._held = block

    def _is_believable(self, gap_s: Fraction, until_s: Fraction) -> bool:
        if gap_s <= 0:
            return False
        if self._clock.may_jump and gap_s > _MAX_STEP_S:
            return False
        if self._clock.end_s is not None:
            return until_s <= self._clock.end_s + 1
        return gap_s <= _MAX_GAP_S

    def _silence(
        self, gap_s: Fraction, block: Decoded, *, is_gap: bool = True
    ) -> Iterator[Placed]:
        n = round(gap_s * block.rate)
        while n > 0:
            n_now = min(n, _SILENCE_S * block.rate)
            zeros = np.zeros((n_now, block.samples.shape[1]), np.float32)
            self.position_s += Fraction(n_now, block.rate)
            yield Placed(zeros, block.rate, is_gap=is_gap)
            n -= n_now

    def _emit(self, block: Decoded) -> Placed:
        assert self._expected_s is not None
        duration_s = Fraction(len(block.samples), block.rate)
        self.position_s += duration_s
        self._expected_s += duration_s
        n_lost, self._n_lost, self._lost_s = self._n_lost, 0, Fraction(0)
        return Placed(block.samples, block.rate, n_lost=n_lost)
