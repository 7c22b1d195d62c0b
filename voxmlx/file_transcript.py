"""A sound file and what decodes it -> events, or a Transcript."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from voxmlx.audio.byte_source import ReadableFile
from voxmlx.audio.channels import SPLIT, FileChannel
from voxmlx.audio.files import AudioFile, no_words, open_audio
from voxmlx.batch import Batch
from voxmlx.checkpoint import Checkpoint, load
from voxmlx.decoding.loop import MAX_AUDIO_TOKENS_PER_STEP
from voxmlx.errors import AudioError
from voxmlx.events import ChannelEvent, Event, Finished, TextDelta, TokenDecoded
from voxmlx.session import Session
from voxmlx.session_options import check_replacements
from voxmlx.text.echo_filter import EchoFilter
from voxmlx.text.labels import distinct_labels
from voxmlx.text.split_writers import SplitEvent, SplitTranscriptBuilder
from voxmlx.text.transcript import Transcript

__all__ = ["Stream", "channel_labels", "file_events", "split_events", "transcribe_file"]

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


def split_events(
    audio: AudioFile,
    sessions: Sequence[Session],
    batch: Batch,
    follow: _Follow = lambda pieces: pieces,
    echo: EchoFilter | None = None,
) -> Iterator[SplitEvent]:
    """Push each channel of a whole file to its own session, and finish them all.

    `audio` was opened with `channel="split"`. The sessions are stepped together in
    `batch`, and each says what it says alone. Yields their events as they come, through
    `echo` if it is given, and the file's warnings. Raises AudioError for what cannot be
    read.
    """
    assert len(sessions) == audio.n_channels
    numbers = {session: number for number, session in enumerate(sessions, 1)}
    for session in sessions:
        batch.add(session)
    peak = 0.0
    has_text = False
    duration_ms = 0

    def stepped() -> Iterator[ChannelEvent]:
        nonlocal has_text, duration_ms
        while batch.n_due:
            for session, events in batch.step(max_tokens=MAX_AUDIO_TOKENS_PER_STEP):
                for event in events:
                    if isinstance(event, TextDelta):
                        has_text = True
                    elif isinstance(event, Finished):
                        duration_ms = event.duration_ms
                    own = ChannelEvent(numbers[session], event)
                    yield from [own] if echo is None else echo.push(own)

    for piece in follow(audio.pieces()):
        yield from audio.take_warnings()
        peak = max(peak, float(np.abs(piece).max(initial=0.0)))
        for index, session in enumerate(sessions):
            session.timeline.push(piece[:, index])
            if echo is not None:
                echo.push_sound(index + 1, piece[:, index])
        yield from stepped()
    yield from audio.take_warnings()
    for session in sessions:
        session.timeline.end()
    yield from stepped()
    if not has_text:
        yield no_words(audio.name, peak, duration_ms)


def channel_labels(audio: AudioFile, named: Sequence[str]) -> list[str]:
    """Return a label for each channel: those that are named, and then "channel N".

    Raises AudioError for more names than channels.
    """
    n = audio.n_channels
    if len(named) > n:
        has = "1 channel" if n == 1 else f"{n} channels"
        raise AudioError(
            f"{audio.name} has {has}, but {len(named)} labels were given; leave some out"
        )
    numbers = range(len(named) + 1, n + 1)
    return distinct_labels([*named, *(f"channel {number}" for number in numbers)])


def transcribe_file(
    path: str | Path | ReadableFile,
    *,
    model: str | Path | Checkpoint,
    raw_rate: int | None = None,
    channel: FileChannel = None,
    track: int | None = None,
    labels: Sequence[str] = (),
    keep_echo: bool = False,
    **options: Any,
) -> Transcript:
    """Transcribe a sound or film file, a pipe, or an open file object.

    `path`, `raw_rate`, `channel` and `track` are those of `open_audio`, `options` those of
    `Session`. With `channel="split"` each channel is transcribed by itself; `labels`
    name the channels, and each segment has its `channel`. Words that are only the echo of
    another channel's are left out, or with `keep_echo` marked `is_echo`.
    `model` is a directory, a Hub id ("demo": the tiny model), or a loaded Checkpoint.
    `Transcript.warnings` says what was wrong with the file. Raises AudioError for what
    is no sound, and CheckpointError.
    """
    with open_audio(path, raw_rate=raw_rate, channel=channel, track=track) as audio:
        checkpoint = model if isinstance(model, Checkpoint) else load(model)
        chosen: dict[str, Any] = {"speculate": True} | options
        if channel != SPLIT:
            session = Session(checkpoint, **chosen)
            return Transcript.from_events(file_events(audio, session))
        builder = SplitTranscriptBuilder(channel_labels(audio, labels))
        # Confidence helps to tell an echo.
        chosen = {"confidence": True} | chosen
        n_channels = audio.n_channels
        replacements = check_replacements(chosen.pop("replacements", None))
        sessions = [Session(checkpoint, **chosen) for _ in range(n_channels)]
        batch = Batch(checkpoint.model)
        echo = EchoFilter(n_channels, keeps=keep_echo, replacements=replacements)
        for event in split_events(audio, sessions, batch, echo=echo):
            builder.feed(event)
        return builder.build()
