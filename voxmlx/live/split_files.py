"""One recording of several channels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from voxmlx.live.output_files import Recording
from voxmlx.live.stream_metrics import StreamMetrics
from voxmlx.text.split_writers import SplitEvent

__all__ = ["SplitRecording"]


class SplitRecording:
    """A 16-bit WAV with a channel for each source, in the order of the labels.

    A listener. What one channel has and another has not yet waits here. At the end
    silence makes up what is missing.
    """

    def __init__(self, path: Path, n_channels: int) -> None:
        """Create the file. Raises OutputError if it is there or cannot be made."""
        self._recording = Recording(path, n_channels=n_channels)
        self._waiting = [np.zeros(0, np.float32) for _ in range(n_channels)]

    def on_audio(self, channel: int, samples: np.ndarray, /) -> None:
        waiting = self._waiting
        waiting[channel - 1] = np.concatenate([waiting[channel - 1], samples])
        self._write(min(map(len, waiting)))

    def on_events(self, events: Sequence[SplitEvent], /) -> None:
        del events

    def on_tick(self, metrics: Sequence[StreamMetrics], /) -> None:
        del metrics

    def close(self) -> None:
        n = max(map(len, self._waiting))
        self._waiting = [np.pad(one, (0, n - len(one))) for one in self._waiting]
        try:
            self._write(n)
        finally:
            self._recording.close()

    def _write(self, n: int) -> None:
        if n:
            rows = np.stack([one[:n] for one in self._waiting], axis=1)
            self._waiting = [one[n:].copy() for one in self._waiting]
            self._recording.on_audio(rows)
