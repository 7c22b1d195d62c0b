"""Sentences with the end of every word, as training.dataset writes them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText
from training.dataset import Dataset

__all__ = ["find"]


def find(path: Path, split: str) -> list[SpeechSet]:
    """Return the folder's sentences."""
    del split
    if not (path / "utterances.jsonl").is_file():
        return []
    return [SpeechSet(path.resolve().name, "en", partial(_read, path))]


def _read(folder: Path) -> Iterator[CorpusRecording]:
    for i, item in enumerate(Dataset(folder)):
        ends_ms = tuple(end / 16 for end in item.word_ends)
        segment = TimedText(f"{i:05d}", " ".join(item.words), word_ends_ms=ends_ms)
        yield CorpusRecording(item.samples, (segment,))
