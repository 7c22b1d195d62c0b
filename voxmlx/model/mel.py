"""Samples -> log-mel frames, exact for any split of the sound."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.config import AudioConfig
from voxmlx.kernels import Fused, power_spectrum
from voxmlx.model.stacking import concat_positions, split

__all__ = ["LogMel", "LogMelState", "mel_filter_bank"]


@dataclass(slots=True)
class LogMelState:
    """Samples [B, n] that some window has still to see."""

    pending: mx.array

    def copy(self) -> "LogMelState":
        return LogMelState(self.pending)


class LogMel:
    """Log-mel spectrogram of a stream that silence precedes.

    Mel frame k is centred on sample k * hop, so it needs half a window of sound
    after its centre: the last frame of a whole sound comes out once that much
    more, silence for instance, has been pushed.
    """

    def __init__(self, config: AudioConfig) -> None:
        self.hop = config.hop_length
        self.window = config.window_size
        self.n_bins = config.num_mel_bins
        # Samples beyond an audio token that its last mel frame needs.
        self.lookahead = self.window // 2 - self.hop
        self.log_floor = config.global_log_mel_max - 8.0
        self._log_floor = mx.array(self.log_floor)
        self._filters = mx.array(
            mel_filter_bank(
                self.n_bins, self.window // 2 + 1, config.sampling_rate
            ).astype(np.float32)
        )

    def make_state(self, batch: int = 1) -> LogMelState:
        return LogMelState(mx.zeros((batch, self.window // 2)))

    def step(self, samples: mx.array, state: LogMelState) -> mx.array:
        """Samples [B, n] float32 in [-1, 1] -> [B, F, n_bins] float32.

        F is however many windows are complete, possibly none.
        """
        return self.step_together([samples], [state])[0]

    def step_together(
        self, samples: Sequence[mx.array], states: Sequence[LogMelState]
    ) -> list[mx.array]:
        """What `step` gives for each stream."""
        windows = [
            self._windows(piece, state)
            for piece, state in zip(samples, states, strict=True)
        ]
        sizes = [w.shape[1] for w in windows]
        return split(self._log_mel(concat_positions(windows)), sizes)

    def _windows(self, samples: mx.array, state: LogMelState) -> mx.array:
        """[B, F, window] that are now complete."""
        sound = mx.concatenate([state.pending, samples], axis=1)
        B, n = sound.shape
        F = max(0, (n - self.window) // self.hop + 1)
        state.pending = sound[:, F * self.hop :]
        if F == 0:
            return mx.zeros((B, 0, self.window))
        return mx.as_strided(sound, (B, F, self.window), (n, self.hop, 1))

    def _log_mel(self, windows: mx.array) -> mx.array:
        B, F, _ = windows.shape
        if F == 0:
            return mx.zeros((B, 0, self.n_bins))
        power = power_spectrum(windows)  # [B, F, n_freq]
        return _log_mel(power @ self._filters, self._log_floor)


def _scaled_log(power: mx.array, floor: mx.array) -> mx.array:
    log_power = mx.log10(mx.maximum(power, 1e-10))
    return (mx.maximum(log_power, floor) + 4.0) / 4.0


_log_mel = Fused(_scaled_log)


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
