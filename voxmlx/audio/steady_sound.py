"""Sound of one device -> the same sound on the computer's clock, without a jump."""

import numpy as np
import soxr

from voxmlx.audio.block_queue import Block
from voxmlx.audio.clock_drift import ClockDrift
from voxmlx.config import SAMPLE_RATE

__all__ = ["SteadySound"]

# A device may give what has piled up at once when it begins. So the first blocks wait
# for so long, and the least late of them says where the sound begins.
_BEGINNING_S = 0.5
# The ratio is looked at once a second, and goes over to another within a tenth.
_EVERY_SAMPLES = SAMPLE_RATE
_SLEW_SAMPLES = SAMPLE_RATE // 10
# What is left of an error after so many seconds is 1/e of it.
_SETTLING_S = 20.0
# 3.5 hundredths of a semitone: no ear and no network notices.
_MAX_CHANGE = 2e-3
# Samples that soxr's filter looks ahead at a variable rate ("HQ", to 16 kHz).
_N_HELD = 240


class SteadySound:
    """Blocks of one device at 16 kHz, resampled so that stream time is the clock's.

    Sample n of what comes out was heard at `origin` + n / 16000 s, but for the constant
    time that sound takes to arrive. Devices whose clocks differ stay together so. The
    rate follows `ClockDrift` in steps too small to hear. Nothing is cut out. Silence is
    put in where a device has lost sound, and before its first block.
    """

    def __init__(self, origin: float) -> None:
        """Begin stream time at `origin`, in the seconds of the blocks' times."""
        self._origin = origin
        self._drift = ClockDrift()
        self._stream = soxr.ResampleStream(
            SAMPLE_RATE * (1 + 2 * _MAX_CHANGE),  # the greatest there may be
            SAMPLE_RATE,
            num_channels=1,
            dtype="float32",
            quality="HQ",
            vr=True,
        )
        self._stream.set_io_ratio(SAMPLE_RATE, SAMPLE_RATE)
        # Samples of silence before the first block, in all, and that came out.
        self._n_before = 0
        self._n_in = self._n_out = self._n_unadjusted = 0
        self._is_begun = self._has_gap = False
        self._first: list[Block] = []

    def push(self, block: Block) -> Block:
        """Hear the next block, and return what is certain: nothing in the first 0.5 s."""
        if self._is_begun:
            return Block(self._steadied(block), block.time)
        if len(block.samples):
            self._first.append(block)
        if self._first and block.time - self._first[0].time >= _BEGINNING_S:
            return Block(self._begin(), block.time)
        return Block(np.zeros(0, np.float32), block.time)

    def _begin(self) -> np.ndarray:
        """Place the first blocks; return the silence before them, and them."""
        self._is_begun = True
        first, self._first = self._first, []
        n_ends = np.cumsum([len(block.samples) for block in first])
        n_late = [
            round((block.time - self._origin) * SAMPLE_RATE) - int(n)
            for block, n in zip(first, n_ends, strict=True)
        ]
        self._n_before = max(0, min(n_late, default=0))
        silence = np.zeros(self._n_before, np.float32)
        return np.concatenate([silence, *(self._steadied(block) for block in first)])

    def _steadied(self, block: Block) -> np.ndarray:
        samples = block.samples
        time_s = block.time - self._origin
        parts: list[np.ndarray] = []
        if self._has_gap and len(samples):
            self._has_gap = False
            parts.append(self._resampled(self._silence_until(time_s, len(samples))))
        self._drift.observe(self._sound_s(len(samples)), time_s)
        self._n_unadjusted += len(samples)
        if self._n_unadjusted >= _EVERY_SAMPLES:
            self._n_unadjusted = 0
            parts.append(self._resampled(self._silence_for_lost()))
            self._adjust(time_s)
        parts.append(self._resampled(samples))
        return np.concatenate(parts)

    def hold(self, seconds: float) -> None:
        """Leave so much of the clock's time out of the stream: nobody listened."""
        self._origin += seconds

    def note_gap(self) -> None:
        """Note that sound is missing before the next block; silence takes its place."""
        self._has_gap = self._is_begun

    def flush(self) -> np.ndarray:
        """Return the samples that are still held; the stream ends here."""
        begun = np.zeros(0, np.float32) if self._is_begun else self._begin()
        left = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        return np.concatenate([begun, left])

    @property
    def n_samples(self) -> int:
        """Return how many samples have come out."""
        return self._n_before + self._n_out

    def _sound_s(self, n_more: int) -> float:
        """Return how much the device has given, by its own clock, from the origin."""
        return (self._n_before + self._n_in + n_more) / SAMPLE_RATE

    def _silence_until(self, time_s: float, n_samples: int) -> np.ndarray:
        """Return as much silence as a block is later than the line says."""
        late_s = time_s - self._sound_s(n_samples) - self._drift.lateness_s(time_s)
        return np.zeros(max(0, round(late_s * SAMPLE_RATE)), np.float32)

    def _silence_for_lost(self) -> np.ndarray:
        return np.zeros(round(self._drift.take_lost_s() * SAMPLE_RATE), np.float32)

    def _adjust(self, time_s: float) -> None:
        """Choose the ratio that takes away the error in the next seconds."""
        # What the resampling has added to the sound so far.
        n_added = self._n_out + _N_HELD - self._n_in
        error_s = self._drift.lateness_s(time_s) - n_added / SAMPLE_RATE
        change = self._drift.rate + error_s / _SETTLING_S
        change = max(-_MAX_CHANGE, min(_MAX_CHANGE, change))
        self._stream.set_io_ratio(
            SAMPLE_RATE, SAMPLE_RATE * (1 + change), _SLEW_SAMPLES
        )

    def _resampled(self, samples: np.ndarray) -> np.ndarray:
        self._n_in += len(samples)
        resampled = self._stream.resample_chunk(samples)
        self._n_out += len(resampled)
        return resampled
