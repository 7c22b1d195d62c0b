"""Another speaker's vocal tract: formants moved, pitch and tempo kept."""

import numpy as np
from scipy import fft

from training.synthesis import SAMPLE_RATE

_N_FFT = 512
_HOP = _N_FFT // 4
# Below the shortest period of a voice: 2 ms, or 500 Hz.
_N_CEPSTRUM = SAMPLE_RATE // 500
_MAX_GAIN = 3.0  # natural logarithm of an amplitude: 26 dB

__all__ = ["warp_formants"]


def warp_formants(samples: np.ndarray, factor: float) -> np.ndarray:
    """Move every formant of float32 samples [n] from f to `factor` * f.

    The envelope of each short spectrum is stretched. Its fine structure, the
    harmonics of the voice, stays: so do pitch, tempo and length.
    """
    n = len(samples)
    n_hops = -(-n // _HOP)
    padded = np.zeros((n_hops + 6) * _HOP, np.float32)
    padded[3 * _HOP : 3 * _HOP + n] = samples
    window = np.hanning(_N_FFT + 1)[:-1].astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::_HOP]
    spectra = fft.rfft(views * window)  # complex64 [F, bins]
    envelope = _log_envelope(spectra)
    gain = np.exp(np.clip(_stretch(envelope, factor) - envelope, -_MAX_GAIN, _MAX_GAIN))
    pieces = fft.irfft(spectra * gain) * window
    out = np.zeros(len(padded), np.float32)
    for quarter in range(4):  # overlap and add
        part = pieces[:, quarter * _HOP : (quarter + 1) * _HOP].ravel()
        out[quarter * _HOP : quarter * _HOP + len(part)] += part
    # Squared Hann windows a quarter apart add up to 1.5.
    return out[3 * _HOP : 3 * _HOP + n] / np.float32(1.5)


def _log_envelope(spectra: np.ndarray) -> np.ndarray:
    """Return the smooth part of the log magnitudes [F, bins]."""
    log_magnitude = np.log(np.abs(spectra) + 1e-5)
    cepstrum = fft.irfft(log_magnitude)
    cepstrum[:, _N_CEPSTRUM : _N_FFT - _N_CEPSTRUM + 1] = 0
    return fft.rfft(cepstrum).real


def _stretch(envelope: np.ndarray, factor: float) -> np.ndarray:
    """Read [F, bins] at bin / `factor`; past the last bin, the last one."""
    n_bins = envelope.shape[1]
    position = np.minimum(np.arange(n_bins) / factor, n_bins - 1.001)
    below = position.astype(int)
    part = (position - below).astype(np.float32)
    return envelope[:, below] * (1 - part) + envelope[:, below + 1] * part
