"""Several inputs of one device -> mono: one of them, their mix, or the one with sound."""

from collections import deque
from typing import Literal

import numpy as np

__all__ = ["SPLIT", "Channel", "ChannelChooser", "FileChannel"]

# An input by its number, from 1; the mean of all; None is the one that carries sound.
Channel = int | Literal["mix"] | None

# Of a file, all may also be heard apart.
SPLIT = "split"
FileChannel = Channel | Literal["split"]

# Blocks in a row that must be loud: a click is no sound.
_N_LOUD = 5
# Another input is taken when it is so much louder than the present one has been.
_LOUDER_DB = 6.0
# What an input has reached is forgotten slowly, so that hum on an idle input does not
# win whenever the speaker pauses.
_FORGET_DB_PER_S = 0.4


class ChannelChooser:
    """Reduces blocks [n, n_channels] of one device to mono, as they come.

    By itself it takes the loudest input. It stays with that one until another has been
    6 dB louder, for five blocks, than the present one has lately been. Example: hum at
    -40 dB on input 1, a voice at -25 dB on input 2. The voice's fifth block of 10 ms
    is heard from input 2, and so is the pause after it. An input that has given only
    zeros is left at once.
    """

    def __init__(self, n_channels: int, channel: Channel = None) -> None:
        assert channel is None or channel == "mix" or 1 <= channel <= n_channels
        self.n_channels = n_channels
        self._channel = channel
        self._index = channel - 1 if isinstance(channel, int) else 0
        self._powers: deque[np.ndarray] = deque(maxlen=_N_LOUD)
        self._reached = np.zeros(n_channels)

    @property
    def current(self) -> int:
        """The number, from 1, of the input that is heard; that of none for a mix."""
        return self._index + 1

    @property
    def loud(self) -> int | None:
        """The number of the input that has been loudest, None if all gave only zeros."""
        return int(self._reached.argmax()) + 1 if self._reached.any() else None

    def mono(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Samples [n, n_channels] -> [n], in memory of their own."""
        if self.n_channels == 1:
            return samples[:, 0].copy()
        self._measure(samples, rate)
        if self._channel == "mix":
            return samples.mean(axis=1, dtype=samples.dtype)
        if self._channel is None:
            self._choose()
        return samples[:, self._index].copy()

    def _measure(self, samples: np.ndarray, rate: int) -> None:
        self._powers.append(np.mean(np.square(samples, dtype=np.float64), axis=0))
        kept = 10 ** (-_FORGET_DB_PER_S * len(samples) / rate / 10)
        steady = np.min(self._powers, axis=0)
        self._reached = np.maximum(self._reached * kept, steady)

    def _choose(self) -> None:
        level, latest = self._reached, self._powers[-1]
        if level[self._index] == latest[self._index] == 0:
            level = latest
        best = int(level.argmax())
        if level[best] > level[self._index] * 10 ** (_LOUDER_DB / 10):
            self._index = best
