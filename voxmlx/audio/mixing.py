"""Many channels -> one: one of them, or their mean unless they cancel in it."""

import numpy as np

from voxmlx.audio.channels import SPLIT, FileChannel

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

    `channel` is a number from 1, "mix" for the plain mean, "split" for all of them as
    they are, or None. With None, a window
    of 0.1 s in which channels cancel each other (inverted stereo) comes from the
    loudest of them alone. What comes out does not depend on the blocks.
    """

    def __init__(self, n_channels: int, rate: int, channel: FileChannel = None) -> None:
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
        """Float32 [n, channels] -> float32 [m], whole windows of what there is.

        With "split" it is [n, channels] as it came.
        """
        if self._channel == SPLIT:
            return block
        if self.n_channels == 1:
            return block[:, 0]
        if isinstance(self._channel, int):
            return block[:, self._channel - 1].copy()
        if self._channel == "mix":
            return _mean(block)
        pending = block
        if len(self._pending):
            pending = np.concatenate([self._pending, block])
        n_whole = len(pending) // self._window * self._window
        self._pending = pending[n_whole:].copy("K")
        return self._mix(pending[:n_whole])

    def flush(self) -> np.ndarray:
        """Return the rest, float32 [m]."""
        pending, self._pending = self._pending, self._pending[:0]
        if self._channel == SPLIT:
            return pending
        if self.n_channels == 1:
            return pending[:, 0]
        return self._mix(pending) if len(pending) else _mean(pending)

    def _mix(self, sound: np.ndarray) -> np.ndarray:
        """Float32 [n, channels], whole windows or less than one -> float32 [n]."""
        mean = _mean(sound)
        n = min(self._window, len(sound)) or 1
        mixed = _powers(mean, n)
        powers = np.stack([_powers(channel, n) for channel in sound.T])
        apart = powers.sum(axis=0) / self.n_channels**2
        for index in np.flatnonzero(mixed < _CANCELLED * apart):
            own = powers[:, index]
            loudest = int(np.argmax(own))
            if self._chosen is None or own[loudest] > _LOUDER * own[self._chosen]:
                self._chosen = loudest
            self._n_cancelled += 1
            window = slice(index * n, (index + 1) * n)
            mean[window] = sound[window, self._chosen]
        return mean


def _mean(sound: np.ndarray) -> np.ndarray:
    """Float32 [n, channels] -> float32 [n]: channel by channel, as that is quick."""
    total = sound[:, 0].copy()
    for channel in sound.T[1:]:
        total += channel
    total /= sound.shape[1]
    return total


def _powers(samples: np.ndarray, n: int) -> np.ndarray:
    """Float32 [k * n] -> float32 [k]: the mean square of each window of n."""
    windows = samples.reshape(-1, n)
    return np.einsum("kn,kn->k", windows, windows) / n
