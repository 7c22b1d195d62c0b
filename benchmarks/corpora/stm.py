"""STM files beside their sounds: TED-LIUM, the Hub5 2000 evaluation, and others."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText, sound_at
from voxmlx.errors import AudioError

__all__ = ["find"]

_IGNORED = "ignore_time_segment_in_scoring"
_CHANNELS = {"A": 1, "B": 2}

# Sounds of Hub5 2000 by the first letters of their names.
_HUB5 = {"sw": "switchboard/hub5e00", "en": "callhome/hub5e00"}


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return one set of all STM files; two for those of Hub5."""
    root = next((d for d in _split_folders(path, split) if d.is_dir()), path)
    files = sorted(root.rglob("*.stm")) if root.is_dir() else []
    if not files:
        return []
    if any(file.name.startswith("hub5e00") for file in files):
        return [
            SpeechSet(name, "en", partial(_read, root, files, prefix))
            for prefix, name in _HUB5.items()
            if next(_read(root, files, prefix), None) is not None
        ]
    is_ted = (root / "stm").is_dir() and (root / "sph").is_dir()
    name = f"tedlium/{root.name}" if is_ted else f"stm/{root.name}"
    read = partial(_read, root, files, "")
    return [SpeechSet(name, "en" if is_ted else None, read, is_long_form=True)]


def _split_folders(path: Path, split: str) -> Iterator[Path]:
    """TED-LIUM has its splits in `legacy`, or at the top."""
    yield path / "legacy" / split
    yield path / split


def _read(root: Path, files: list[Path], prefix: str) -> Iterator[CorpusRecording]:
    for file in files:
        by_sound: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
        for line in file.read_text("utf-8").splitlines():
            if line.startswith(";;") or not line.strip():
                continue
            name, channel, _, start, end, text = [*line.split(None, 5), ""][:6]
            if name.startswith(prefix):
                row = float(start), float(end), re.sub(r"^<[^>]*>\s*", "", text)
                by_sound.setdefault((name, channel), []).append(row)
        for (name, channel), rows in by_sound.items():
            rows.sort()
            sound = _sound(root, file, name)
            yield CorpusRecording(
                sound,
                tuple(
                    TimedText(f"{name}-{channel}-{start:.2f}", text, start, end)
                    for start, end, written in rows
                    if (text := _spoken(written))
                ),
                _CHANNELS.get(channel.upper()),
                tuple((start, end) for start, end, text in rows if _is_ignored(text)),
            )


def _sound(root: Path, file: Path, name: str) -> Path:
    near = [file.parent, file.parent.parent / "sph", root, root / "sph"]
    sound = sound_at(*(folder / name for folder in near))
    found = sound or next(root.rglob(f"{name}.*[!m]"), None)
    if found is None:
        raise AudioError(f"{file} names {name}, but no such sound is under {root}")
    return found


def _is_ignored(text: str) -> bool:
    return _IGNORED in text.lower()


def _spoken(text: str) -> str:
    """Return the words of an STM's text: of alternatives the first, no noises."""
    if _is_ignored(text):
        return ""
    text = re.sub(r"\{([^/}]*)(/[^}]*)?\}", r"\1", text)
    text = re.sub(r"\(%[^)]*\)|<[^>]*>|\[[^]]*\]|%\S+", " ", text)
    return " ".join(text.replace("@", " ").split())
