"""Common Voice: a folder per language, with test.tsv and clips/."""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText
from voxmlx.errors import AudioError

__all__ = ["find"]


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return the language that `path` is, or all languages that it holds."""
    folders = [path, *sorted(path.iterdir())] if path.is_dir() else []
    return [
        SpeechSet(
            f"common-voice/{f.name}" + ("" if split == "test" else f"/{split}"),
            f.name.partition("-")[0],
            partial(_read, f, split),
        )
        for f in folders
        if (f / "clips").is_dir() and (f / f"{split}.tsv").is_file()
    ]


def _read(folder: Path, split: str) -> Iterator[CorpusRecording]:
    with (folder / f"{split}.tsv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            sound = folder / "clips" / row["path"]
            if not sound.is_file():
                raise AudioError(f"{sound} does not exist, but {split}.tsv names it")
            yield CorpusRecording(sound, (TimedText(row["path"], row["sentence"]),))
