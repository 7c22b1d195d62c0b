"""Recordings of a corpus, and the texts that are said in them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxmlx.audio.channels import Channel

__all__ = ["SOUNDS", "CorpusRecording", "SpeechSet", "TimedText", "sound_at"]

# Suffixes of sound files, the most likely first.
SOUNDS = (".flac", ".wav", ".sph", ".mp3", ".opus", ".ogg", ".m4a", ".webm", ".mp4")


@dataclass(frozen=True, slots=True)
class TimedText:
    """Text that is said between two times, or to the end where `end_s` is None."""

    id: str
    text: str
    start_s: float = 0.0
    end_s: float | None = None
    word_ends_ms: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class CorpusRecording:
    """A sound that is not read yet, and its segments in order.

    `sound` is a path, the bytes of a file, or samples [n] at 16 kHz. Words that are
    heard in the seconds of `ignored` are not compared.
    """

    sound: Path | bytes | np.ndarray
    segments: tuple[TimedText, ...]
    channel: Channel = None
    ignored: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class SpeechSet:
    """A part of a corpus: `read` yields its recordings, always in the same order.

    `language` is a code of ISO 639-1, or None. `is_long_form` says that a recording
    is decoded as one stream, as its publisher means it. `count` returns the number of
    segments where that is cheaper than to read.
    """

    name: str
    language: str | None
    read: Callable[[], Iterator[CorpusRecording]]
    is_long_form: bool = False
    count: Callable[[], int] | None = None


def sound_at(*stems: Path) -> Path | None:
    """Return the sound file that has one of the names, without their suffix."""
    for stem in stems:
        for suffix in SOUNDS:
            path = stem.with_name(stem.name + suffix)
            if path.is_file():
                return path
    return None
