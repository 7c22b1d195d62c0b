"""The figures of a live stream as the sentence that ends it."""

from voxmlx.cli.progress import clock
from voxmlx.config import AUDIO_TOKEN_MS
from voxmlx.live.stream_metrics import Figures

__all__ = ["summary"]


def summary(figures: Figures) -> str:
    """Return how much was heard, how late text came, and how fast it was decoded."""
    parts = [f"heard {clock(figures.heard_s)}"]
    if figures.lag_p95_ms:
        p50_ms, p95_ms = figures.lag_p50_ms, figures.lag_p95_ms
        parts.append(f"lag {p50_ms:.0f} ms, 95 % below {p95_ms:.0f} ms")
    if figures.n_tokens:
        real_time = f"real time needs {1000 / AUDIO_TOKEN_MS:g}"
        parts.append(f"{figures.tokens_per_s:.0f} tokens/s, {real_time}")
    return "; ".join(parts)
