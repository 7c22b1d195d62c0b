"""A JSONL manifest with NeMo's keys: a sound, its text, a part of the sound."""

import json
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText
from voxmlx.errors import AudioError

__all__ = ["find"]


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return the manifest that `path` is, or <split>*.json(l) and manifest*.json(l) in it."""
    if path.is_file():
        files = [path]
    else:
        names = (f"{split}*.json", f"{split}*.jsonl", "*manifest*.json*")
        files = sorted({file for name in names for file in path.glob(name)})
    sets: list[SpeechSet] = []
    for file in files:
        with file.open(encoding="utf-8") as lines:
            first = _row(file, 1, lines.readline(), is_sure=path.is_file())
        if first is not None:
            read = partial(_read, file)
            sets.append(SpeechSet(f"manifest/{file.stem}", first.get("lang"), read))
    return sets


def _row(file: Path, number: int, line: str, *, is_sure: bool) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if isinstance(row, dict) and {"audio_filepath", "text"} <= row.keys():
        return row
    if is_sure:
        raise AudioError(
            f"line {number} of {file} is {line[:60]!r}, expected a JSON object with "
            "audio_filepath and text"
        )
    return None


def _read(file: Path) -> Iterator[CorpusRecording]:
    with file.open(encoding="utf-8") as lines:
        rows = (
            (number, _row(file, number, line, is_sure=True))
            for number, line in enumerate(lines, 1)
            if line.strip()
        )
        told = ((number, row) for number, row in rows if row is not None)
        for sound, group in groupby(told, key=lambda pair: pair[1]["audio_filepath"]):
            path = file.parent / sound
            if not path.is_file():
                raise AudioError(f"{path} does not exist, but {file} names it")
            segments = [_segment(sound, number, row) for number, row in group]
            segments.sort(key=lambda segment: segment.start_s)
            yield CorpusRecording(path, tuple(segments))


def _segment(sound: str, number: int, row: dict[str, Any]) -> TimedText:
    offset, length = row.get("offset"), row.get("duration")
    start = 0.0 if offset is None else float(offset)
    # Without an offset the duration is the whole file's, more or less.
    end = None if offset is None or length is None else start + float(length)
    return TimedText(f"{number}-{Path(sound).name}", row["text"], start, end)
