"""Meanwhile: meanwhile.json with a text and two times for each video, and the sounds."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText, sound_at
from voxmlx.audio.files import open_audio
from voxmlx.errors import AudioError

__all__ = ["find"]

# A sound that is this much longer than its excerpt is the whole video.
_SLACK_S = 1.0


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return the set if meanwhile.json is in `path`."""
    del split
    if not (path / "meanwhile.json").is_file():
        return []
    return [SpeechSet("meanwhile", "en", partial(_read, path), is_long_form=True)]


def _read(folder: Path) -> Iterator[CorpusRecording]:
    rows = json.loads((folder / "meanwhile.json").read_text("utf-8"))
    for name, row in rows.items():
        sound = sound_at(folder / name, folder / "audio" / name)
        if sound is None:
            raise AudioError(f"meanwhile.json names {name}, but {folder} lacks it")
        start_s, end_s = _seconds(row["begin"]), _seconds(row["end"])
        with open_audio(sound) as audio:
            length_s = audio.duration_s
        if length_s is not None and length_s <= end_s - start_s + _SLACK_S:
            start_s, end_s = 0.0, None
        text = " ".join(row["text"].split())
        yield CorpusRecording(sound, (TimedText(name, text, start_s, end_s),))


def _seconds(time: str) -> float:
    """Return 64.0 for 1:04.0."""
    seconds = 0.0
    for part in time.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds
