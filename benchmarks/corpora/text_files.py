"""Sounds with a .txt of the same name beside each, in folders however deep."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import SOUNDS, CorpusRecording, SpeechSet, TimedText

__all__ = ["find"]


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return all sounds under `path` that have a text."""
    del split
    if next(_read(path), None) is None:
        return []
    return [SpeechSet(path.resolve().name, None, partial(_read, path))]


def _read(folder: Path) -> Iterator[CorpusRecording]:
    for text in sorted(folder.rglob("*.txt")):
        sounds = (text.with_suffix(suffix) for suffix in SOUNDS)
        sound = next((one for one in sounds if one.is_file()), None)
        if sound is not None:
            name = text.relative_to(folder).with_suffix("").as_posix()
            said = " ".join(text.read_text("utf-8").split())
            yield CorpusRecording(sound, (TimedText(name, said),))
