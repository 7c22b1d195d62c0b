"""A Kaldi data directory: text, wav.scp, and segments where recordings have several."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText
from voxmlx.errors import AudioError

__all__ = ["find"]


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return the data directory that `path` is."""
    del split
    if not ((path / "text").is_file() and (path / "wav.scp").is_file()):
        return []
    return [SpeechSet(f"kaldi/{path.name}", None, partial(_read, path))]


def _read(folder: Path) -> Iterator[CorpusRecording]:
    texts = _table(folder / "text")
    sounds = _table(folder / "wav.scp")
    by_sound: dict[str, list[TimedText]] = {}
    if (folder / "segments").is_file():
        for name, row in _table(folder / "segments").items():
            sound, start, end = row.split()
            segment = TimedText(name, texts.get(name, ""), float(start), float(end))
            by_sound.setdefault(sound, []).append(segment)
    else:
        by_sound = {name: [TimedText(name, text)] for name, text in texts.items()}
    for name, segments in by_sound.items():
        place = sounds.get(name, "")
        path = folder / place
        if place.endswith("|") or not path.is_file():
            raise AudioError(
                f"wav.scp says {place!r} for {name}, expected the path of a sound; run "
                "its command once, and name what that wrote"
            )
        segments.sort(key=lambda segment: segment.start_s)
        yield CorpusRecording(path, tuple(segments))


def _table(file: Path) -> dict[str, str]:
    lines = file.read_text("utf-8").splitlines()
    rows = (line.split(None, 1) for line in lines if line.strip())
    return {row[0]: row[1] if len(row) > 1 else "" for row in rows}
