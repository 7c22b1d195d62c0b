"""A sound file and its text -> words with times."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxmlx.alignment.aligner import (
    ALIGNED,
    MISSING,
    UNWRITTEN,
    AlignedWord,
    Aligner,
)
from voxmlx.audio.byte_source import ReadableFile
from voxmlx.audio.channels import Channel
from voxmlx.audio.files import AudioFile, open_audio
from voxmlx.checkpoint import Checkpoint, load
from voxmlx.events import Event, Finished, SoundWarning, UtteranceEnd, Word, WordFinal
from voxmlx.text.transcript import Transcript

__all__ = ["Alignment", "align_file", "alignment_events", "as_event"]

_Follow = Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]

AlignmentEvent = AlignedWord | UtteranceEnd | SoundWarning | Finished


@dataclass(frozen=True, slots=True)
class Alignment:
    """All words of a text in order, and between them those that only the sound holds.

    `transcript` has the words of the text that the sound holds, in segments, for
    `render` and whatever else takes a Transcript.
    """

    words: tuple[AlignedWord, ...]
    transcript: Transcript

    @property
    def missing(self) -> tuple[AlignedWord, ...]:
        """Return the words of the text that the sound does not hold."""
        return tuple(word for word in self.words if word.status == MISSING)

    @property
    def unwritten(self) -> tuple[AlignedWord, ...]:
        """Return the words of the sound that the text does not hold."""
        return tuple(word for word in self.words if word.status == UNWRITTEN)


def align_file(
    path: str | Path | ReadableFile,
    text: str,
    *,
    model: str | Path | Checkpoint,
    raw_rate: int | None = None,
    channel: Channel = None,
    track: int | None = None,
    **options: Any,
) -> Alignment:
    """Give the words of `text` their times in a sound or film file.

    `path`, `raw_rate`, `channel` and `track` are those of `open_audio`, `options` those
    of `Aligner`. `model` is a directory, a Hub id ("demo": the tiny model), or a loaded
    Checkpoint. Raises AudioError, CheckpointError, DelayError, and TextError for a text
    that cannot be aligned.
    """
    with open_audio(path, raw_rate=raw_rate, channel=channel, track=track) as audio:
        checkpoint = model if isinstance(model, Checkpoint) else load(model)
        found = list(alignment_events(audio, Aligner(checkpoint, text, **options)))
    words = tuple(one for one in found if isinstance(one, AlignedWord))
    events = (as_event(one) for one in found)
    return Alignment(
        words, Transcript.from_events([one for one in events if one is not None])
    )


def alignment_events(
    audio: AudioFile, aligner: Aligner, follow: _Follow = lambda pieces: pieces
) -> Iterator[AlignmentEvent]:
    """Push a whole file and finish; yield what becomes certain as it comes.

    The file's warnings are among it. `follow` sees the pieces pass. Raises AudioError.
    """
    for piece in follow(audio.pieces()):
        yield from audio.take_warnings()
        yield from aligner.push(piece)
    yield from audio.take_warnings()
    yield from aligner.finish()
    yield Finished(aligner.duration_ms, 0)


def as_event(found: AlignmentEvent) -> Event | None:
    """Return what a session would say of the same; None for words it would not say."""
    if not isinstance(found, AlignedWord):
        return found
    if found.status != ALIGNED:
        return None
    word = Word(found.text, found.start_ms, found.end_ms, found.confidence, found.lead)
    return WordFinal(word, found.end_ms)
