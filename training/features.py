"""Log-mel features of a batch, disturbed, on the device that trains."""

import math

import numpy as np
import torch

from training.mel import N_MELS, LogMel
from training.targets import LEFT_PAD_TOKENS

MASKED = -0.3  # a middling log-mel value, in place of what is hidden
MEL_FRAMES_PER_TOKEN = 8
_N_KNOTS = 5
AS_IT_IS_ODDS = 0.25

__all__ = ["Features"]


class Features:
    """PCM16 int16 [B, n] -> log-mel float32 [B, 128, n // 160], warped and masked."""

    def __init__(self, device: torch.device | str, seed: int) -> None:
        self._device = torch.device(device)
        self._log_mel = LogMel(self._device)
        self._rng = np.random.default_rng(seed)

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        log_mel = self._log_mel(samples.to(self._device).float() / 32768)
        log_mel = self._warp(log_mel)
        n_rows, _, n_frames = log_mel.shape
        hidden = torch.from_numpy(self._draw_hidden(n_rows, n_frames))
        return log_mel.masked_fill(hidden.to(self._device), MASKED)

    def _warp(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Stretch the mel axis of three rows in four, as another throat would.

        Playing faster moves pitch, spectrum and time together; this moves the
        spectrum alone, its lower and upper parts not quite alike, so that more
        speakers come of the few voices there are.
        """
        position = torch.from_numpy(self._draw_positions(len(log_mel))).to(self._device)
        below = position.long().clamp(max=N_MELS - 2)
        part = (position - below)[..., None]
        row = torch.arange(len(log_mel), device=self._device)[:, None]
        return log_mel[row, below].lerp(log_mel[row, below + 1], part)

    def _draw_positions(self, n_rows: int) -> np.ndarray:
        """Return the place that each mel band is read from, float32 [rows, 128]."""
        bands = np.arange(N_MELS)
        knots = np.linspace(0, N_MELS - 1, _N_KNOTS)
        positions = np.empty((n_rows, N_MELS), np.float32)
        for position in positions:
            stretch, bend = 1.0, np.zeros(N_MELS)
            if self._rng.random() >= AS_IT_IS_ODDS:
                stretch = math.exp(self._rng.uniform(-0.15, 0.15))
                bend = np.interp(bands, knots, self._rng.uniform(-2.5, 2.5, _N_KNOTS))
            position[:] = bands * stretch + bend
        return positions.clip(0, N_MELS - 1)

    def _draw_hidden(self, n_rows: int, n_frames: int) -> np.ndarray:
        """Return where a few mel bands and moments are hidden, bool [rows, 128, T]."""
        rng = self._rng
        hidden = np.zeros((n_rows, N_MELS, n_frames), bool)
        first = LEFT_PAD_TOKENS * MEL_FRAMES_PER_TOKEN
        for row in hidden:
            for _ in range(rng.integers(0, 3)):
                band = int(rng.integers(0, N_MELS - 12))
                row[band : band + int(rng.integers(1, 13))] = True
            for _ in range(rng.integers(0, 5)):
                frame = int(rng.integers(first, n_frames - 10))
                row[:, frame : frame + int(rng.integers(1, 7))] = True
        return hidden
