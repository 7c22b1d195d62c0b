"""Folders of speech with its text -> utterances, whatever way they are laid out."""

import csv
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from training.dataset import Dataset
from voxmlx.audio.files import open_audio
from voxmlx.audio.resample import Resampler
from voxmlx.errors import AudioError

__all__ = ["Utterance", "utterances"]

_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")


@dataclass(frozen=True, slots=True)
class Utterance:
    """16 kHz mono float32 samples, what is said, and where words end if that is known."""

    samples: np.ndarray
    text: str
    word_ends_ms: tuple[float, ...] | None = None


def utterances(folder: Path) -> Iterator[Utterance]:
    """Return the utterances of a folder, in its own order. Raises AudioError.

    Three layouts: sounds with a `.txt` of the same name beside them; a language of
    FLEURS as it is published (`test.tsv`, and `audio/test.tar.gz` or `audio/test/`);
    what `training.dataset` writes, with the ends of words.
    """
    if (folder / "utterances.jsonl").is_file():
        return _synthesised(folder)
    if (folder / "test.tsv").is_file():
        return _fleurs(folder)
    sounds = [path for path in sorted(folder.glob("*")) if path.suffix in _SUFFIXES]
    told = [path for path in sounds if path.with_suffix(".txt").is_file()]
    if not told:
        raise AudioError(
            f"{folder} holds no speech to compare with, expected sounds with a .txt "
            "beside each, FLEURS' test.tsv and audio/, or utterances.jsonl"
        )
    return (_read(path) for path in told)


def _read(path: Path) -> Utterance:
    with open_audio(path) as audio:
        samples = np.concatenate(list(audio.pieces()))
    return Utterance(samples, path.with_suffix(".txt").read_text(encoding="utf-8"))


def _synthesised(folder: Path) -> Iterator[Utterance]:
    for item in Dataset(folder):
        ends_ms = tuple(end / 16 for end in item.word_ends)
        yield Utterance(item.samples, " ".join(item.words), ends_ms)


def _fleurs(folder: Path) -> Iterator[Utterance]:
    """test.tsv's second column names a sound, its third is what was read out."""
    with (folder / "test.tsv").open(encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        texts = {row[1]: row[2] for row in rows}
    archive = folder / "audio" / "test.tar.gz"
    if archive.is_file():
        with tarfile.open(archive) as members:
            for member in members:
                name = Path(member.name).name
                file = members.extractfile(member)
                if file is not None and name in texts:
                    yield Utterance(_at_16_khz(file.read()), texts[name])
        return
    for name, text in texts.items():
        path = folder / "audio" / "test" / name
        if not path.is_file():
            raise AudioError(
                f"{path} does not exist, but {folder / 'test.tsv'} names it; unpack "
                "audio/test.tar.gz there"
            )
        yield Utterance(_at_16_khz(path.read_bytes()), text)


def _at_16_khz(content: bytes) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    resampler = Resampler(rate)
    mono = samples.mean(axis=1, dtype=np.float32)
    return np.concatenate([resampler.push(mono), resampler.flush()])
