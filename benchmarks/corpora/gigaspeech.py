"""GigaSpeech: GigaSpeech.json, gigabytes of it, and long recordings with segments."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText
from voxmlx.errors import AudioError

__all__ = ["find"]

_MARKS = {
    "<COMMA>": ",",
    "<PERIOD>": ".",
    "<QUESTIONMARK>": "?",
    "<EXCLAMATIONPOINT>": "!",
}
_BLOCK = 1 << 20


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return the segments of the split (test: {TEST}) if GigaSpeech.json is there."""
    if not (path / "GigaSpeech.json").is_file():
        return []
    return [SpeechSet(f"gigaspeech/{split}", "en", partial(_read, path, split))]


def _read(folder: Path, split: str) -> Iterator[CorpusRecording]:
    subset = "{" + split.upper() + "}"
    for audio in _audios(folder / "GigaSpeech.json"):
        if subset not in audio.get("subsets", ()):
            continue
        sound = folder / audio["path"]
        if not sound.is_file():
            raise AudioError(f"{sound} does not exist, but GigaSpeech.json names it")
        segments = tuple(
            TimedText(row["sid"], text, row["begin_time"], row["end_time"])
            for row in sorted(audio["segments"], key=lambda row: row["begin_time"])
            if subset in row.get("subsets", (subset,)) and (text := _text(row))
        )
        yield CorpusRecording(sound, segments)


def _text(row: dict[str, Any]) -> str:
    """Return what is said, with punctuation; "" for silence, music and noise."""
    text = row.get("text_tn") or row["text_tts"]
    for tag, mark in _MARKS.items():
        text = text.replace(f" {tag}", mark)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def _audios(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the members of "audios" one by one; the file is never held as a whole."""
    decoder = json.JSONDecoder()
    with file.open(encoding="utf-8") as lines:
        text = ""
        while (begin := re.search(r'"audios"\s*:\s*\[', text)) is None:
            if not (more := lines.read(_BLOCK)):
                raise AudioError(f'{file} has no list "audios"')
            text += more
        text = text[begin.end() :]
        while True:
            text = text.lstrip(" \t\r\n,")
            if text.startswith("]"):
                return
            try:
                audio, end = decoder.raw_decode(text)
            except ValueError:
                if not (more := lines.read(_BLOCK)):
                    raise AudioError(f"{file} is cut off") from None
                text += more
                continue
            yield audio
            text = text[end:]
