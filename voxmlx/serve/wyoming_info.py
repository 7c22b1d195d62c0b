"""Facts that Wyoming's clients ask for before they send sound."""

from functools import cache
from typing import Any

import voxmlx
from voxmlx.config import BASE_MODEL

__all__ = ["LANGUAGES", "describe"]

# What the model was trained on; Home Assistant offers a program for these alone.
LANGUAGES = (
    "ar",
    "de",
    "en",
    "es",
    "fr",
    "hi",
    "it",
    "ja",
    "ko",
    "nl",
    "pt",
    "ru",
    "zh",
)

_PROJECT = "https://github.com/voxmlx-realtime/voxmlx-realtime"
_MODEL_PAGE = f"https://huggingface.co/{BASE_MODEL}"

# Kinds of service that a Wyoming server may have; this one is of the first alone.
_KINDS = ("asr", "tts", "handle", "intent", "wake", "mic", "snd")


@cache
def describe(model: str) -> dict[str, Any]:
    """Return the fields of an `info` event of a server of that model."""
    shared = {"installed": True, "version": voxmlx.__version__}
    served = {
        "name": model,
        "description": "Voxtral Mini 4B Realtime",
        "attribution": {"name": "Mistral AI", "url": _MODEL_PAGE},
        "languages": list(LANGUAGES),
        **shared,
    }
    program = {
        "name": "voxmlx",
        "description": "Live speech to text on MLX",
        "attribution": {"name": "voxmlx-realtime", "url": _PROJECT},
        "models": [served],
        "supports_transcript_streaming": True,
        # Its words come with the sound; when a command is over, the client says.
        "requires_external_vad": True,
        **shared,
    }
    return {kind: [program] if kind == "asr" else [] for kind in _KINDS}
