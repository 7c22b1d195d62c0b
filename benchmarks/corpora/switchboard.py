"""Switchboard: telephone calls of two channels, with the transcripts of 1998."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText
from voxmlx.errors import AudioError

__all__ = ["find"]

_FILE = re.compile(r"sw(\d{4})([AB])-ms98-a-trans\.text")


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return all calls that have a transcript. The corpus has no splits."""
    del split
    files = [f for f in sorted(path.rglob("sw*-trans.text")) if _FILE.match(f.name)]
    read = partial(_read, path, files)
    return [SpeechSet("switchboard/ms98", "en", read)] if files else []


def _read(root: Path, files: list[Path]) -> Iterator[CorpusRecording]:
    sounds = {
        file.stem: file
        for pattern in ("sw*.sph", "sw*.wav", "sw*.flac")
        for file in root.rglob(pattern)
    }
    for file in files:
        match = _FILE.match(file.name)
        assert match is not None
        number, side = match.groups()
        sound = sounds.get(f"sw0{number}") or sounds.get(f"sw{number}")
        if sound is None:
            raise AudioError(f"{file} has no sound sw0{number}.sph under {root}")
        rows = [line.split(None, 3) for line in file.read_text("utf-8").splitlines()]
        segments = tuple(
            TimedText(row[0], text, float(row[1]), float(row[2]))
            for row in rows
            if len(row) == 4 and (text := _spoken(row[3]))
        )
        yield CorpusRecording(sound, segments, 1 if side == "A" else 2)


def _spoken(text: str) -> str:
    """Return the words of a transcript: no noises, and words cut short as they were said."""
    text = re.sub(r"\[laughter-([^]]*)\]", r"\1", text)
    text = re.sub(r"\[[^]/]*/([^]]*)\]", r"\1", text)
    text = re.sub(r"(?<=\w)\[[^]]*\](?=-)|(?<=-)\[[^]]*\](?=\w)", "", text)
    text = re.sub(r"\[[^]]*\]|<[^>]*>", " ", text)
    text = re.sub(r"[{}]|_1\b", "", text)
    return " ".join(text.split())
