"""DecodedSound blocks -> sound without holes, each sample at the time its container says.

A track that starts late begins with silence, and a gap becomes silence. States:

- contiguous: a block stands where the one before it ended, within a tolerance.
- held: a block of one frame claims another time. The next block decides. If it follows
  the held one, the claim was right: a gap becomes silence, a step back is a new begin of
  the container's time, and no sound is dropped. Otherwise the stamp was wrong. A block
  of several frames that follow each other proves its claim itself.

Example: blocks of 0.02 s at 0.00, 0.02, 1.04, 1.06 s give one second of silence
after 0.04 s, once the block at 1.06 s confirms it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from voxmlx.audio.sound_decoder import Clock, DecodedSound, Lost

__all__ = ["Placed", "Placer"]

# Time stamps in milliseconds, and those of a browser's recorder, are off by less.
_JITTER_S = 0.1
# Where stamps count samples, or packets are known to be lost.
_EXACT_S = 0.005

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
        # The next sample is expected at the time of one block, and so many later.
        self._begin_s: float | None = None
        self._n_since = 0
        self._rate = 1
        self._held: DecodedSound | None = None
        self._n_lost = 0
        self._lost_s = 0.0

    def place(self, blocks: Iterable[DecodedSound | Lost]) -> Iterator[Placed]:
        for block in blocks:
            if isinstance(block, Lost):
                self._n_lost += 1
                self._lost_s += block.duration_s
            elif self._begin_s is None:
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

    def _first(self, block: DecodedSound) -> Iterator[Placed]:
        self._expect(block.time_s or 0.0, block.rate)
        if block.time_s is not None:
            late_s = block.time_s - self._clock.begin_s
            if self._n_lost == 0:
                # What a decoder leaves out at its start is no sound of the track.
                late_s -= block.lead_s
            if self._is_believable(late_s, block.time_s):
                yield from self._silence(late_s, block, is_gap=False)
        yield self._emit(block)

    def _next(self, block: DecodedSound) -> Iterator[Placed]:
        if self._held is not None:
            held, self._held = self._held, None
            assert held.time_s is not None
            after_s = held.time_s + len(held.samples) / held.rate
            if block.time_s is not None and abs(block.time_s - after_s) <= _JITTER_S:
                yield from self._believe(held, held.time_s)
            yield self._emit(held)
        if block.time_s is None:
            yield self._emit(block)
            return
        step_s = block.time_s - self._expected_s
        if self._n_lost and _EXACT_S < step_s <= self._lost_s + _JITTER_S:
            yield from self._silence(step_s, block)
            self._expect(block.time_s, block.rate)
            yield self._emit(block)
        elif abs(step_s) <= (_EXACT_S if self._clock.is_exact else _JITTER_S):
            yield self._emit(block)
        elif block.n_frames > 1:
            yield from self._believe(block, block.time_s)
            yield self._emit(block)
        else:
            self._held = block

    def _believe(self, block: DecodedSound, time_s: float) -> Iterator[Placed]:
        """Go to the time that a block claims, with silence if that is later."""
        gap_s = time_s - self._expected_s
        if self._is_believable(gap_s, time_s):
            yield from self._silence(gap_s, block)
        self._expect(time_s, block.rate)

    @property
    def _expected_s(self) -> float:
        assert self._begin_s is not None
        return self._begin_s + self._n_since / self._rate

    def _expect(self, time_s: float, rate: int) -> None:
        self._begin_s, self._n_since, self._rate = time_s, 0, rate

    def _is_believable(self, gap_s: float, until_s: float) -> bool:
        if gap_s <= 0:
            return False
        if self._clock.may_jump and gap_s > _MAX_STEP_S:
            return False
        if self._clock.end_s is not None:
            return until_s <= self._clock.end_s + 1
        return gap_s <= _MAX_GAP_S

    def _silence(
        self, gap_s: float, block: DecodedSound, *, is_gap: bool = True
    ) -> Iterator[Placed]:
        n = round(gap_s * block.rate)
        while n > 0:
            n_now = min(n, _SILENCE_S * block.rate)
            zeros = np.zeros((n_now, block.samples.shape[1]), np.float32)
            yield Placed(zeros, block.rate, is_gap=is_gap)
            n -= n_now

    def _emit(self, block: DecodedSound) -> Placed:
        if block.rate != self._rate:
            self._expect(self._expected_s, block.rate)
        self._n_since += len(block.samples)
        n_lost, self._n_lost, self._lost_s = self._n_lost, 0, 0.0
        return Placed(block.samples, block.rate, n_lost=n_lost)
