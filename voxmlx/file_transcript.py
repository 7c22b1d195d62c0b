"""A sound file and what decodes it -> events, or a Transcript."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from voxmlx.audio.byte_source import ReadableFile
from voxmlx.audio.channels import Channel
from voxmlx.audio.files import AudioFile, no_words, open_audio
from voxmlx.checkpoint import Checkpoint, load
from voxmlx.events import Event, Finished, TextDelta, TokenDecoded
from voxmlx.session import Session
from voxmlx.text.transcript import Transcript

__all__ = ["Stream", "file_events", "transcribe_file"]

_Follow = Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]


# Samples of a file that is read to its end.
_ANY_LENGTH = 1 << 62


class Stream(Protocol):
    """One stream's timeline: what is needed of a Session."""

    def push(self, samples: np.ndarray, /) -> list[Event]: ...
    def finish(self) -> list[Event]: ...


def file_events(
    audio: AudioFile,
    stream: Stream,
    follow: _Follow = lambda pieces: pieces,
    known: Sequence[TokenDecoded] = (),
) -> Iterator[Event]:
    """Push a whole file and finish the stream; yield its events as they come.

    The file's warnings are among them, and one if no word was heard. `follow` sees
    the pieces pass. A Session does not decode again the ids that are `known`. Raises
    AudioError for what cannot be read.
    """
    peak = 0.0
    has_text = False

    def pieces() -> Iterator[np.ndarray]:
        nonlocal peak
        for piece in follow(audio.pieces()):
            peak = max(peak, float(np.abs(piece).max(initial=0.0)))
            yield piece

    if known and isinstance(stream, Session):
        batches = stream.replay_pieces(pieces(), _ANY_LENGTH, known)
    else:
        batches = (stream.push(piece) for piece in pieces())
    for events in batches:
        yield from audio.take_warnings()
        for event in events:
            has_text = has_text or isinstance(event, TextDelta)
            yield event
    yield from audio.take_warnings()
    for event in stream.finish():
        has_text = has_text or isinstance(event, TextDelta)
        if isinstance(event, Finished) and not has_text:
            yield no_words(audio.name, peak, event.duration_ms)
        yield event


def transcribe_file(
    path: str | Path | ReadableFile,
    *,
    model: str | Path | Checkpoint,
    raw_rate: int | None = None,
    channel: Channel = None,
    **options: Any,
) -> Transcript:
    """Transcribe a sound or film file, a pipe, or an open file object.

    `path`, `raw_rate` and `channel` are those of `open_audio`, `options` those of
    `Session`.
    `model` is a directory, a Hub id ("demo": the tiny model), or a loaded Checkpoint.
    `Transcript.warnings` says what was wrong with the file. Raises AudioError for what
    is no sound, and CheckpointError.
    """
    with open_audio(path, raw_rate=raw_rate, channel=channel) as audio:
        checkpoint = model if isinstance(model, Checkpoint) else load(model)
        chosen: dict[str, Any] = {"speculate": True} | options
        session = Session(checkpoint, **chosen)
        return Transcript.from_events(file_events(audio, session))
