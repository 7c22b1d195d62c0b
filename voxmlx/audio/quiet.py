"""A count of quiet audio tokens, for as long as a stream is quiet."""

import numpy as np
from numpy.typing import NDArray

from voxmlx.audio.energy import EnergyDetector
from voxmlx.config import AUDIO_TOKEN_MS, SAMPLES_PER_AUDIO_TOKEN

__all__ = ["QuietRun"]

# Longer runs are all the same: a count without end would grow with the stream.
_MAX_TOKENS = 1 << 20


class QuietRun:
    """Counts the whole audio tokens without speech at the end of what was pushed.

    Speech is what `EnergyDetector` takes for it. So a steady noise is quiet as soon as
    its floor is known, and a voice above it ends the run with its first audio token.
    """

    def __init__(self) -> None:
        self._energy = EnergyDetector(memory_ms=4000)
        self._n_samples = 0  # of the audio token that is not whole
        self.n_tokens = 0
        """Audio tokens at the end without speech."""

    def push(self, samples: NDArray[np.float32]) -> None:
        """Hear more: [n] float32 at 16 kHz, from the beginning of an audio token on."""
        while len(samples):
            part = samples[: SAMPLES_PER_AUDIO_TOKEN - self._n_samples]
            samples = samples[len(part) :]
            self._energy.push(part)
            self._n_samples += len(part)
            if self._n_samples == SAMPLES_PER_AUDIO_TOKEN:
                self._n_samples = 0
                end_ms = self._energy.decided_ms
                is_speech = self._energy.is_speech(end_ms - AUDIO_TOKEN_MS, end_ms)
                self.n_tokens = 0 if is_speech else min(self.n_tokens + 1, _MAX_TOKENS)
