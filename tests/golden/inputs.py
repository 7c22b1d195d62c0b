"""What the golden vectors are vectors of, all of it from seeds."""

import hashlib
from pathlib import Path

import numpy as np

from tests.padding import n_new_tokens, prompt
from tests.sounds import speech_like
from tests.tiny import TinyModel

__all__ = [
    "DELAYS_MS",
    "ENCODER_STRIDE",
    "LOGITS_DELAY_MS",
    "LOGITS_STRIDE",
    "MEL_STRIDE",
    "MODEL",
    "PATH",
    "SOUND",
    "checksums",
    "token_ids",
]

PATH = Path(__file__).parent / "golden.npz"
# The fourth and fifth seconds see windows that wrapped many times.
SOUND = speech_like(5 * 16_000 + 77, seed=2026)
MODEL = TinyModel(seed=2026, encoder_window=18, decoder_window=21)

# 480 ms and its neighbours, the shortest, and both of the longest.
DELAYS_MS = (80, 400, 480, 560, 1200, 2400)
LOGITS_DELAY_MS = 480

# Every so many rows are kept; the strides visit each phase of an audio token.
MEL_STRIDE, ENCODER_STRIDE, LOGITS_STRIDE = 11, 5, 9


def token_ids() -> list[int]:
    """Prompt and random ids: the tokens the golden logits were given."""
    rng = np.random.default_rng(2026)
    after = rng.integers(0, MODEL.vocab_size, n_new_tokens(len(SOUND)) - 1)
    return prompt(LOGITS_DELAY_MS) + after.tolist()


def checksums() -> dict[str, str]:
    """SHA-256 of the sound and of the weights, to tell a moved input from a bug."""
    weights = hashlib.sha256()
    for name, values in MODEL.tensors().items():
        weights.update(name.encode() + values.tobytes())
    sound = hashlib.sha256(SOUND.tobytes())
    return {"sound": sound.hexdigest(), "weights": weights.hexdigest()}
