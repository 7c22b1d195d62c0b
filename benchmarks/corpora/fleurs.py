"""FLEURS: a folder per language, with test.tsv and audio/test.tar.gz or audio/test/."""

import csv
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText
from voxmlx.errors import AudioError

__all__ = ["LANGUAGES", "find"]

# The thirteen languages of the model, by FLEURS' names.
LANGUAGES = {
    "ar_eg": "ar",
    "de_de": "de",
    "en_us": "en",
    "es_419": "es",
    "fr_fr": "fr",
    "hi_in": "hi",
    "it_it": "it",
    "nl_nl": "nl",
    "pt_br": "pt",
    "cmn_hans_cn": "zh",
    "ja_jp": "ja",
    "ko_kr": "ko",
    "ru_ru": "ru",
}


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return the language that `path` is, or the model's languages that it holds."""
    data = path / "data" if (path / "data").is_dir() else path
    folders = [path, *(data / name for name in LANGUAGES)]
    return [_set(f, split) for f in folders if _is_language(f, split)]


def _is_language(folder: Path, split: str) -> bool:
    audio = folder / "audio"
    has_sound = (audio / f"{split}.tar.gz").is_file() or (audio / split).is_dir()
    return has_sound and (folder / f"{split}.tsv").is_file()


def _set(folder: Path, split: str) -> SpeechSet:
    language = LANGUAGES.get(folder.name, folder.name.partition("_")[0])
    name = f"fleurs/{folder.name}" + ("" if split == "test" else f"/{split}")
    read = partial(_read, folder, split)
    return SpeechSet(name, language, read, count=lambda: len(_texts(folder, split)))


def _texts(folder: Path, split: str) -> dict[str, str]:
    """Texts by the name of their sound: the third column is what was read out."""
    with (folder / f"{split}.tsv").open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {row[1]: row[2] for row in rows}


def _read(folder: Path, split: str) -> Iterator[CorpusRecording]:
    texts = _texts(folder, split)
    archive = folder / "audio" / f"{split}.tar.gz"
    if archive.is_file():
        with tarfile.open(archive) as members:
            for member in members:
                name = Path(member.name).name
                file = members.extractfile(member)
                # The archive keeps its members in memory unless that is undone.
                members.members = []  # pyright: ignore[reportAttributeAccessIssue] -- not in the stubs
                if file is not None and name in texts:
                    yield CorpusRecording(file.read(), (TimedText(name, texts[name]),))
        return
    for name, text in texts.items():
        sound = folder / "audio" / split / name
        if not sound.is_file():
            raise AudioError(
                f"{sound} does not exist, but {split}.tsv names it; unpack "
                f"audio/{split}.tar.gz there"
            )
        yield CorpusRecording(sound, (TimedText(name, text),))
