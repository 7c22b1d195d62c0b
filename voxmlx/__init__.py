"""Live speech to text with Voxtral Mini 4B Realtime, on MLX.

The names below load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voxmlx.alignment.align_file import Alignment, align_file
    from voxmlx.alignment.aligner import AlignedWord, Aligner
    from voxmlx.audio.files import AudioFile, open_audio
    from voxmlx.audio.microphone import Microphone
    from voxmlx.batch import Batch
    from voxmlx.checkpoint import Checkpoint, load
    from voxmlx.config import LEGAL_DELAYS_MS
    from voxmlx.decoding.rules import GUARDS
    from voxmlx.errors import (
        AudioError,
        CheckpointError,
        ConfigError,
        DelayError,
        DeviceError,
        HotwordError,
        KernelError,
        OutputError,
        RequestError,
        ServerError,
        SessionError,
        TextError,
        TokenizerError,
        VoxmlxError,
    )
    from voxmlx.events import (
        Alternative,
        DraftChanged,
        Event,
        Finished,
        GuardActed,
        Recovered,
        SoundWarning,
        TextDelta,
        TokenDecoded,
        UtteranceEnd,
        Word,
        WordFinal,
    )
    from voxmlx.file_transcript import transcribe_file
    from voxmlx.memory import MemoryLimits, limit_memory
    from voxmlx.session import Session
    from voxmlx.streaming import EventStream, stream
    from voxmlx.text.transcript import Segment, Transcript

    __version__: str

__all__ = [
    "GUARDS",
    "LEGAL_DELAYS_MS",
    "AlignedWord",
    "Aligner",
    "Alignment",
    "Alternative",
    "AudioError",
    "AudioFile",
    "Batch",
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "DelayError",
    "DeviceError",
    "DraftChanged",
    "Event",
    "EventStream",
    "Finished",
    "GuardActed",
    "HotwordError",
    "KernelError",
    "MemoryLimits",
    "Microphone",
    "OutputError",
    "Recovered",
    "RequestError",
    "Segment",
    "ServerError",
    "Session",
    "SessionError",
    "SoundWarning",
    "TextDelta",
    "TextError",
    "TokenDecoded",
    "TokenizerError",
    "Transcript",
    "UtteranceEnd",
    "VoxmlxError",
    "Word",
    "WordFinal",
    "__version__",
    "align_file",
    "limit_memory",
    "load",
    "open_audio",
    "stream",
    "transcribe_file",
]

_HOMES = {
    "AlignedWord": "alignment.aligner",
    "Aligner": "alignment.aligner",
    "Alignment": "alignment.align_file",
    "Alternative": "events",
    "AudioError": "errors",
    "AudioFile": "audio.files",
    "Batch": "batch",
    "Checkpoint": "checkpoint",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "DelayError": "errors",
    "DeviceError": "errors",
    "Event": "events",
    "EventStream": "streaming",
    "DraftChanged": "events",
    "Finished": "events",
    "GUARDS": "decoding.rules",
    "GuardActed": "events",
    "HotwordError": "errors",
    "KernelError": "errors",
    "LEGAL_DELAYS_MS": "config",
    "MemoryLimits": "memory",
    "Microphone": "audio.microphone",
    "OutputError": "errors",
    "Recovered": "events",
    "RequestError": "errors",
    "Segment": "text.transcript",
    "ServerError": "errors",
    "Session": "session",
    "SessionError": "errors",
    "SoundWarning": "events",
    "TextDelta": "events",
    "TextError": "errors",
    "TokenDecoded": "events",
    "TokenizerError": "errors",
    "Transcript": "text.transcript",
    "UtteranceEnd": "events",
    "VoxmlxError": "errors",
    "Word": "events",
    "WordFinal": "events",
    "align_file": "alignment.align_file",
    "limit_memory": "memory",
    "load": "checkpoint",
    "open_audio": "audio.files",
    "stream": "streaming",
    "transcribe_file": "file_transcript",
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
