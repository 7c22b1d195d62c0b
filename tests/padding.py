"""What mistral-common puts around a sound and before its tokens."""

import numpy as np

__all__ = ["n_new_tokens", "pad_sound", "prompt"]

_SAMPLES_PER_AUDIO_TOKEN = 1280
_LEFT_PAD_TOKENS = 32
# After the delay: one for BOS, ten for the longest word.
_EXTRA_RIGHT_PAD_TOKENS = 1 + 10
_BOS, _PAD = 1, 32


def pad_sound(samples: np.ndarray, delay_ms: int) -> np.ndarray:
    """Silence on both sides, to a whole number of audio tokens."""
    to_whole_token = -len(samples) % _SAMPLES_PER_AUDIO_TOKEN
    right_pad_tokens = delay_ms // 80 + _EXTRA_RIGHT_PAD_TOKENS
    right = to_whole_token + right_pad_tokens * _SAMPLES_PER_AUDIO_TOKEN
    return np.pad(samples, (_LEFT_PAD_TOKENS * _SAMPLES_PER_AUDIO_TOKEN, right))


def prompt(delay_ms: int) -> list[int]:
    """The ids of the positions before the first token is chosen."""
    return [_BOS] + [_PAD] * (_LEFT_PAD_TOKENS + delay_ms // 80)


def n_new_tokens(n_samples: int) -> int:
    """Tokens that transformers' generate() makes of a sound by default.

    The last audio token of the right pad is never decoded.
    """
    return -(-n_samples // _SAMPLES_PER_AUDIO_TOKEN) + 10
