"""What a microphone and a line do: band, mu-law, level, overload."""

import math

import numpy as np
from scipy import fft

from training.synthesis import SAMPLE_RATE

_MU = 255
# Odds of a line's band, and of its G.711 codec where the band is a telephone's.
_NARROW_ODDS, _MU_LAW_ODDS = 0.4, 0.5
_LOUD_ODDS = 0.12

__all__ = ["limit_band", "mu_law", "overload", "record", "set_peak"]


def limit_band(samples: np.ndarray, low_hz: float, high_hz: float) -> np.ndarray:
    """Keep the frequencies between two edges, which roll off over a tenth of each."""
    n_fft = fft.next_fast_len(len(samples), real=True)
    spectrum = fft.rfft(samples, n_fft)
    hertz = np.linspace(0, SAMPLE_RATE / 2, len(spectrum))
    fall = np.clip((high_hz - hertz) / (0.1 * high_hz) + 1, 0, 1)
    rise = np.clip((hertz - low_hz) / (0.1 * low_hz + 1) + 1, 0, 1)
    kept = fft.irfft(spectrum * (fall * rise).astype(np.float32), n_fft)
    return kept[: len(samples)].astype(np.float32)


def mu_law(samples: np.ndarray) -> np.ndarray:
    """Pass samples within [-1, 1] through the 8 bits of G.711's mu-law."""
    compressed = np.log1p(_MU * np.abs(samples)) / math.log1p(_MU)
    steps = np.round(compressed * 127) / 127
    return (np.sign(samples) * np.expm1(steps * math.log1p(_MU)) / _MU).astype(
        np.float32
    )


def overload(samples: np.ndarray, gain: float) -> np.ndarray:
    """Amplify by `gain` and cut off what exceeds full scale."""
    return np.clip(samples * np.float32(gain), -1, 1)


def set_peak(samples: np.ndarray, peak_dbfs: float) -> np.ndarray:
    """Scale so that the loudest sample has this level; silence stays as it is."""
    peak = float(np.abs(samples).max(initial=0))
    return samples * np.float32(10 ** (peak_dbfs / 20) / max(peak, 1e-4))


def record(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a line: telephone or wide band, now and then overloaded."""
    if rng.random() < _NARROW_ODDS:
        low_hz, high_hz = rng.uniform(0, 320), rng.choice([3400, 3700, 3950, 5500])
        samples = limit_band(samples, float(low_hz), float(high_hz))
        if high_hz < 4000 and rng.random() < _MU_LAW_ODDS:
            samples = mu_law(np.clip(samples, -1, 1))
    if rng.random() < _LOUD_ODDS:
        samples = overload(set_peak(samples, 0), 10 ** (rng.uniform(0, 14) / 20))
    return samples
