"""Every layout of a corpus that is known, and which of them a path has."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.corpora import (
    ami,
    chime4,
    common_voice,
    earnings,
    fleurs,
    gigaspeech,
    kaldi,
    librispeech,
    marked,
    meanwhile,
    nemo_manifest,
    stm,
    switchboard,
    text_files,
)
from benchmarks.corpora.recording import SpeechSet
from voxmlx.errors import AudioError

__all__ = ["LAYOUTS", "sets_in"]

# The first that finds something is taken: those with telling names come first.
LAYOUTS: dict[str, Callable[[Path, str], list[SpeechSet]]] = {
    "marked": marked.find,
    "meanwhile": meanwhile.find,
    "gigaspeech": gigaspeech.find,
    "earnings": earnings.find,
    "ami": ami.find,
    "chime4": chime4.find,
    "kaldi": kaldi.find,
    "fleurs": fleurs.find,
    "common_voice": common_voice.find,
    "nemo": nemo_manifest.find,
    "librispeech": librispeech.find,
    "switchboard": switchboard.find,
    "stm": stm.find,
    "text_files": text_files.find,
}


def sets_in(
    path: Path, *, split: str = "test", layout: str | None = None
) -> list[SpeechSet]:
    """Return the sets that a path holds, in a layout that is named or found.

    Raises AudioError for a path that is missing or has none of the layouts.
    """
    if not path.exists():
        raise AudioError(f"{path} does not exist, expected a folder or a manifest")
    if path.is_file():
        return nemo_manifest.find(path, split)
    for name, find in LAYOUTS.items():
        if layout in (None, name) and (sets := find(path, split)):
            return sets
    expected = layout or ", ".join(LAYOUTS)
    raise AudioError(
        f"{path} holds no speech to compare with, expected the layout of {expected} "
        f"with a split {split}; sounds with a .txt beside each will do"
    )
