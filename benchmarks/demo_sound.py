"""The sound that benchmarks hear where none is given: the demo's sample."""

import numpy as np

from voxmlx import demo
from voxmlx.audio.files import open_audio

__all__ = ["sample"]


def sample() -> np.ndarray:
    """Read the demo's sample: float32 [n] at 16 kHz."""
    with open_audio(demo.SAMPLE) as audio:
        return np.concatenate(list(audio.pieces()))
