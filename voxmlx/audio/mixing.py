"""Many channels -> one: one of them, or their mean unless they cancel in it."""

import numpy as np

from voxmlx.audio.channels import Channel

__all__ = ["Mixer"]

# What is judged at once. A live stereo stream lags by as much.
_WINDOW_S = 0.1

# The mean of channels that have nothing in common has the power of their powers' sum
# over the square of their number. Below this part of it they cancel each other.
_CANCELLED = 0.1

# How much louder another channel must be to be taken instead of the one before.
_LOUDER = 4.0

# Windows that were cancelled before it is worth a word.
_N_TOLD = 3


class Mixer:
    """The mean of the channels of one stream, or one channel.

    `channel` is a number from 1, "mix" for the plain mean, or None. With None, a window
    of 0.1 s in which channels cancel each other (inverted stereo) comes from the
    loudest of them alone. What comes out does not depend on the blocks.
    """

    def __init__(self, n_channels: int, rate: int, channel: Channel = None) -> None:
        assert not isinstance(channel, int) or 1 <= channel <= n_channels
        self.n_channels = n_channels
        self._channel = channel
        self._window = max(1, round(_WINDOW_S * rate))
        self._pending = np.zeros((0, n_channels), np.float32)
        self._chosen: int | None = None
        self._n_cancelled = 0

    @property
    def chosen(self) -> int | None:
        """Return the channel (from 0) heard instead of the mean; None while it is that."""
        return self._chosen if self._n_cancelled >= _N_TOLD else None

    def push(self, block: np.ndarray) -> np.ndarray:
        """Float32 [n, channels] -> float32 [m], whole windows of what there is."""
        if self.n_channels == 1:
            return block[:, 0]
        if isinstance(self._channel, int):
            return block[:, self._channel - 1].copy()
        if self._channel == "mix":
            return block.mean(axis=1, dtype=np.float32)
        pending = np.concatenate([self._pending, block])
        n_whole = len(pending) // self._window * self._window
        self._pending = pending[n_whole:].copy()
        return self._mix(pending[:n_whole])

    def flush(self) -> np.ndarray:
        """Return the rest, float32 [m]."""
        pending, self._pending = self._pending, self._pending[:0]
        return self._mix(pending) if self.n_channels > 1 else pending[:, 0]

    def _mix(self, sound: np.ndarray) -> np.ndarray:
        mean = sound.mean(axis=1, dtype=np.float32)
        for start in range(0, len(sound), self._window):
            window = sound[start : start + self._window].astype(np.float64)
            powers = (window**2).mean(axis=0)
            apart = powers.sum() / self.n_channels**2
            mixed = float((window.mean(axis=1) ** 2).mean())
            if mixed >= _CANCELLED * apart:
                continue
            loudest = int(np.argmax(powers))
            if self._chosen is None or powers[loudest] > _LOUDER * powers[self._chosen]:
                self._chosen = loudest
            self._n_cancelled += 1
            mean[start : start + self._window] = sound[
                start : start + self._window, self._chosen
            ]
        return mean
