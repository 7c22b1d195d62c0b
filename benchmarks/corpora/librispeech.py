"""LibriSpeech: FLAC files, and a *.trans.txt in each chapter's folder."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText, sound_at
from voxmlx.errors import AudioError

__all__ = ["find"]


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return a set for each part (test-clean, test-other) whose name has the split."""
    del split
    root = path / "LibriSpeech" if (path / "LibriSpeech").is_dir() else path
    parts = [d for d in sorted(root.glob("*-*")) if next(d.glob("*/*/*.trans.txt"), 0)]
    if not parts and next(root.rglob("*.trans.txt"), None) is not None:
        parts = [root]
    return [SpeechSet(f"librispeech/{p.name}", "en", partial(_read, p)) for p in parts]


def _read(part: Path) -> Iterator[CorpusRecording]:
    for chapter in sorted(part.rglob("*.trans.txt")):
        for line in chapter.read_text("utf-8").splitlines():
            name, _, text = line.partition(" ")
            sound = sound_at(chapter.parent / name)
            if sound is None:
                raise AudioError(f"{chapter} names {name}, but no sound is beside it")
            yield CorpusRecording(sound, (TimedText(name, text),))
