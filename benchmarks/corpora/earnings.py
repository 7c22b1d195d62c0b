"""Earnings-21 and Earnings-22: calls in media/, tokens in transcripts/nlp_references/."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText, sound_at
from voxmlx.errors import AudioError

__all__ = ["find"]


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return the corpus that `path` is, or those that it holds."""
    del split
    folders = [path, *sorted(path.glob("earnings*"))]
    return [
        SpeechSet(_name(f), "en", partial(_read, f), is_long_form=True)
        for f in folders
        if (f / "transcripts" / "nlp_references").is_dir()
    ]


def _name(folder: Path) -> str:
    is_21 = (folder / "earnings21-file-metadata.csv").is_file()
    return "earnings21" if is_21 or "21" in folder.name else "earnings22"


def _read(folder: Path) -> Iterator[CorpusRecording]:
    for file in sorted((folder / "transcripts" / "nlp_references").glob("*.nlp")):
        sound = sound_at(folder / "media" / file.stem)
        if sound is None:
            raise AudioError(f"{file} has no sound in {folder / 'media'}")
        yield CorpusRecording(sound, (TimedText(file.stem, _text(file)),))


def _text(file: Path) -> str:
    """Join the tokens with their punctuation: token|speaker|ts|endTs|punctuation|..."""
    rows = [line.split("|") for line in file.read_text("utf-8").splitlines()]
    token, mark = rows[0].index("token"), rows[0].index("punctuation")
    spoken = (row for row in rows[1:] if not row[token].startswith("<"))
    return " ".join(row[token] + row[mark] for row in spoken)
