"""Live speech to text with Voxtral Mini 4B Realtime, on MLX.

The names below load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxmlx.checkpoint import Checkpoint, load
    from voxmlx.config import LEGAL_DELAYS_MS
    from voxmlx.errors import VoxmlxError
    from voxmlx.events import (
        Alternative,
        Event,
        Finished,
        GuardActed,
        Recovered,
        TextDelta,
        TokenDecoded,
        UtteranceEnd,
        Word,
        WordFinal,
    )
    from voxmlx.session import Session
    from voxmlx.streaming import stream
    from voxmlx.transcript import Segment, Transcript

    __version__: str

__all__ = [
    "LEGAL_DELAYS_MS",
    "Alternative",
    "Checkpoint",
    "Event",
    "Finished",
    "GuardActed",
    "Recovered",
    "Segment",
    "Session",
    "TextDelta",
    "TokenDecoded",
    "Transcript",
    "UtteranceEnd",
    "VoxmlxError",
    "Word",
    "WordFinal",
    "__version__",
    "load",
    "stream",
]

_HOMES = {
    "Alternative": "events",
    "Checkpoint": "checkpoint",
    "Event": "events",
    "Finished": "events",
    "GuardActed": "events",
    "LEGAL_DELAYS_MS": "config",
    "Recovered": "events",
    "Segment": "transcript",
    "Session": "session",
    "TextDelta": "events",
    "TokenDecoded": "events",
    "Transcript": "transcript",
    "UtteranceEnd": "events",
    "VoxmlxError": "errors",
    "Word": "events",
    "WordFinal": "events",
    "load": "checkpoint",
    "stream": "streaming",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'voxmlx' has no attribute {name!r}")
    return getattr(import_module(f"voxmlx.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    """Return the installed version, "0+unknown" for a folder that pip does not know."""
    # A local import: it costs more than all else that `import voxmlx` does.
    from importlib import metadata

    try:
        return metadata.version("voxmlx-realtime")
    except metadata.PackageNotFoundError:
        return "0+unknown"
