"""Samples -> log-mel frames, exact for any split of the sound, on the host."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.config import AudioConfig

__all__ = ["LogMel", "LogMelState", "mel_filter_bank"]


@dataclass(slots=True)
class LogMelState:
    """Samples [B, n] that some window has still to see."""

    pending: NDArray[np.float32]

    def copy(self) -> "LogMelState":
        return LogMelState(self.pending)


class LogMel:
    """Log-mel spectrogram of a stream that silence precedes.

    Mel frame k is centred on sample k * hop, so it needs half a window of sound
    after its centre: the last frame of a whole sound comes out once that much
    more, silence for instance, has been pushed.

    NumPy computes it, in float64: eight windows of an audio token take no longer than
    a GPU needs to be told, and what a GPU makes of float32 (TF32 on an M5) does not
    matter here.
    """

    def __init__(self, config: AudioConfig) -> None:
        self.hop = config.hop_length
        self.window = config.window_size
        self.n_bins = config.num_mel_bins
        # Samples beyond an audio token that its last mel frame needs.
        self.lookahead = self.window // 2 - self.hop
        self.log_floor = config.global_log_mel_max - 8.0
        n_freq = self.window // 2 + 1
        self._filters = mel_filter_bank(self.n_bins, n_freq, config.sampling_rate)
        # The periodic window, Hann's.
        self._offsets = np.arange(self.window)
        angles = self._offsets / self.window
        self._hann = 0.5 - 0.5 * np.cos(2 * np.pi * angles)

    def make_state(self, batch: int = 1) -> LogMelState:
        return LogMelState(np.zeros((batch, self.window // 2), np.float32))

    def step(self, samples: NDArray[Any] | mx.array, state: LogMelState) -> mx.array:
        """Samples [B, n] float32 in [-1, 1] -> [B, F, n_bins] float32.

        F is however many windows are complete, possibly none.
        """
        return self.step_together([samples], [state])[0]

    def step_together(
        self,
        samples: Sequence[NDArray[Any] | mx.array],
        states: Sequence[LogMelState],
        dtype: mx.Dtype = mx.float32,
    ) -> list[mx.array]:
        """Return for each stream what `step` returns, rounded to `dtype` on the host."""
        return [
            mx.array(self._log_mel(self._windows(piece, state)), dtype)
            for piece, state in zip(samples, states, strict=True)
        ]

    def _windows(
        self, samples: NDArray[Any] | mx.array, state: LogMelState
    ) -> NDArray[np.float32]:
        """[B, F, window] that are now complete."""
        piece = np.asarray(samples, np.float32)
        sound = np.concatenate([state.pending, piece], axis=1)
        F = max(0, (sound.shape[1] - self.window) // self.hop + 1)
        state.pending = sound[:, F * self.hop :]
        if F == 0:
            return np.zeros((sound.shape[0], 0, self.window), np.float32)
        starts = np.arange(F)[:, None] * self.hop
        return sound[:, starts + self._offsets]

    def _log_mel(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        B, F, _ = windows.shape
        if F == 0:
            return np.zeros((B, 0, self.n_bins), np.float32)
        # What is not finite passes through without a warning: who reads ids sees it.
        with np.errstate(invalid="ignore", over="ignore"):
            spectrum = np.fft.rfft(windows * self._hann)
            power = np.square(spectrum.real) + np.square(spectrum.imag)
            log_power = np.log10(np.maximum(power @ self._filters, 1e-10))
            log_mel = (np.maximum(log_power, self.log_floor) + 4.0) / 4.0
            return log_mel.astype(np.float32)


def mel_filter_bank(n_bins: int, n_freq: int, rate: int) -> NDArray[np.float64]:
    """Slaney's triangular filters from 0 Hz to rate / 2: [n_freq, n_bins].

    Linear below 1 kHz and logarithmic above (27 bins per factor 6.4), each filter
    scaled to unit area: M. Slaney, Auditory Toolbox, 1998.
    """
    hz_per_mel, break_hz = 200.0 / 3.0, 1000.0
    break_mel, log_step = break_hz / hz_per_mel, np.log(6.4) / 27.0

    def to_mel(hz: float) -> float:
        if hz < break_hz:
            return hz / hz_per_mel
        return break_mel + float(np.log(hz / break_hz)) / log_step

    mels = np.linspace(0.0, to_mel(rate / 2), n_bins + 2)
    edges = np.where(
        mels < break_mel,
        mels * hz_per_mel,
        break_hz * np.exp(log_step * (mels - break_mel)),
    )
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    hz = np.linspace(0.0, rate / 2, n_freq)[:, None]
    rising = (hz - low) / (centre - low)
    falling = (high - hz) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (high - low))
