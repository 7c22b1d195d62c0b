"""Log-mel spectrogram of the field, in PyTorch."""

import torch

N_MELS = 128
SAMPLE_RATE = 16_000
N_FFT = 400
HOP = 160
GLOBAL_LOG_MEL_MAX = 1.5

__all__ = ["GLOBAL_LOG_MEL_MAX", "HOP", "N_FFT", "N_MELS", "SAMPLE_RATE", "LogMel"]


def _hertz_to_mel(hertz: torch.Tensor) -> torch.Tensor:
    """Slaney's scale: linear below 1 kHz, logarithmic above."""
    log_part = (
        15 + torch.log(hertz.clamp(min=1e-9) / 1000) * 27 / torch.tensor(6.4).log()
    )
    return torch.where(hertz >= 1000, log_part, hertz * 3 / 200)


def _mel_to_hertz(mel: torch.Tensor) -> torch.Tensor:
    log_part = 1000 * torch.exp(torch.tensor(6.4).log() / 27 * (mel - 15))
    return torch.where(mel >= 15, log_part, mel * 200 / 3)


def mel_filters() -> torch.Tensor:
    """Slaney-normalised triangles from 0 to 8000 Hz, [N_FFT // 2 + 1, N_MELS]."""
    nyquist = torch.tensor([0.0, SAMPLE_RATE / 2], dtype=torch.float64)
    low, high = _hertz_to_mel(nyquist).tolist()
    bins = torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1, dtype=torch.float64)
    edges = _mel_to_hertz(torch.linspace(low, high, N_MELS + 2, dtype=torch.float64))
    width = edges.diff()
    slopes = edges[None] - bins[:, None]  # [bins, N_MELS + 2]
    rising = -slopes[:, :-2] / width[:-1]
    falling = slopes[:, 2:] / width[1:]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * 2 / (edges[2:] - edges[:-2])).float()


class LogMel:
    """Samples [B, n] -> log-mel [B, 128, n // 160], the last STFT frame dropped."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._filters = mel_filters().to(device)
        self._window = torch.hann_window(N_FFT, device=device)

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(
            samples,
            N_FFT,
            HOP,
            window=self._window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )[..., :-1]
        power = torch.view_as_real(spectrum).square().sum(-1)  # [B, bins, T]
        mel = self._filters.T @ power
        log_mel = mel.clamp(min=1e-10).log10().clamp(min=GLOBAL_LOG_MEL_MAX - 8)
        return (log_mel + 4) / 4
