"""CHiME-4: sentences recorded in four places, real and simulated, one channel of six."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText
from voxmlx.errors import AudioError

__all__ = ["find"]

_SPLITS = {"test": "et05", "dev": "dt05", "train": "tr05"}
_PLACES = ("bus", "caf", "ped", "str")


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return the real and the simulated part of the split."""
    data = path / "data" if (path / "data").is_dir() else path
    part = _SPLITS.get(split, split)
    return [
        SpeechSet(f"chime-4/{part}_{kind}", "en", partial(_read, data, part, kind))
        for kind in ("real", "simu")
        if _texts_file(data, part, kind) is not None
    ]


def _texts_file(data: Path, part: str, kind: str) -> Path | None:
    stem = data / "transcriptions" / f"{part}_{kind}"
    files = (stem.with_name(f"{stem.name}.{end}") for end in ("trn_all", "dot_all"))
    return next((file for file in files if file.is_file()), None)


def _read(data: Path, part: str, kind: str) -> Iterator[CorpusRecording]:
    file = _texts_file(data, part, kind)
    assert file is not None
    audio = data / "audio" / "16kHz"
    tracks = (audio / "isolated_1ch_track", audio / "isolated")
    track = next((d for d in tracks if d.is_dir()), audio)
    sounds = {
        sound.name.split(".")[0]: sound
        for place in _PLACES
        for sound in sorted((track / f"{part}_{place}_{kind}").glob("*.wav"))
        if re.search(r"\.CH[0-46-9]\.", sound.name) is None
    }
    for line in file.read_text("utf-8").splitlines():
        if file.suffix == ".trn_all":
            name, _, text = line.partition(" ")
        else:
            text, _, name = line.rstrip(" )").rpartition("(")
        if not name:
            continue
        if name not in sounds:
            raise AudioError(f"{file} names {name}, but it is not under {track}")
        text = " ".join(re.sub(r"<[^>]*>|\[[^]]*\]|[~*]", " ", text).split())
        yield CorpusRecording(sounds[name], (TimedText(name, text),))
