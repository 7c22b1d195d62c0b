"""Recordings -> passages: what one stream hears each, and what is said in it."""

import io
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.corpora.recording import CorpusRecording, SpeechSet, TimedText
from voxmlx.audio.files import AudioFile, open_audio
from voxmlx.config import SAMPLE_RATE

__all__ = ["Passage", "n_passages", "passages"]

_PIECE_S = 2.0


@dataclass(frozen=True, slots=True)
class Passage:
    """A stream's sound, opened when its pieces are asked for, and its text.

    `pieces` yields float32 [n] at 16 kHz. Words heard within `ignored_ms` do not count.
    """

    id: str
    text: str
    pieces: Callable[[], Iterator[np.ndarray]]
    ignored_ms: tuple[tuple[float, float], ...] = ()
    word_ends_ms: tuple[float, ...] | None = None


def passages(
    speech: SpeechSet,
    *,
    is_long_form: bool | None = None,
    n_most: int | None = None,
    skipped: Container[str] = (),
) -> Iterator[Passage]:
    """Yield the passages of a set in order, without those whose id is `skipped`.

    In long form, a recording is one passage: from the start of its first segment to the
    end of its last. Else each segment is one. Without `is_long_form` it is what the set
    says. At most `n_most` are yielded or skipped. Raises AudioError.
    """
    long_form = speech.is_long_form if is_long_form is None else is_long_form
    n_left = n_most
    for recording in speech.read():
        segments = recording.segments[:n_left] if not long_form else recording.segments
        if not segments:
            continue
        if long_form or _is_whole(recording):
            passage = _whole(recording)
            if passage.id not in skipped:
                yield passage
            n_taken = 1
        else:
            wanted = [one for one in segments if one.id not in skipped]
            yield from _cut(recording, wanted)
            n_taken = len(segments)
        if n_left is not None:
            n_left -= n_taken
            if n_left <= 0:
                return


def n_passages(speech: SpeechSet, *, is_long_form: bool | None = None) -> int:
    """Return how many passages a set has, without reading any sound."""
    long_form = speech.is_long_form if is_long_form is None else is_long_form
    if speech.count is not None:
        return speech.count()
    sizes = (len(recording.segments) for recording in speech.read())
    return sum(min(n, 1) if long_form else n for n in sizes)


def _is_whole(recording: CorpusRecording) -> bool:
    segment = recording.segments[0]
    return len(recording.segments) == 1 and not segment.start_s and not segment.end_s


def _whole(recording: CorpusRecording) -> Passage:
    """One passage of all that is said, and of the sound around it as little as can be."""
    first, last = recording.segments[0], recording.segments[-1]
    ends = [segment.end_s for segment in recording.segments]
    end_s = None if None in ends else max(end for end in ends if end is not None)
    ignored = tuple(
        (1000 * (start - first.start_s), 1000 * (end - first.start_s))
        for start, end in recording.ignored
    )
    name = first.id if first is last else f"{first.id}..{last.id}"
    return Passage(
        name,
        " ".join(segment.text for segment in recording.segments),
        lambda: _part(recording, first.start_s, end_s),
        ignored,
        first.word_ends_ms if first is last else None,
    )


def _part(
    recording: CorpusRecording, start_s: float, end_s: float | None
) -> Iterator[np.ndarray]:
    """Yield the pieces of a recording between two times."""
    start = round(start_s * SAMPLE_RATE)
    end = None if end_s is None else round(end_s * SAMPLE_RATE)
    n_before = 0
    for piece in _pieces(recording):
        if end is not None and n_before >= end:
            return
        part = piece[max(0, start - n_before) : None if end is None else end - n_before]
        n_before += len(piece)
        if len(part):
            yield part


def _pieces(recording: CorpusRecording) -> Iterator[np.ndarray]:
    sound = recording.sound
    if isinstance(sound, np.ndarray):
        yield sound
        return
    with _opened(recording, sound) as audio:
        yield from audio.pieces(_PIECE_S)


def _opened(recording: CorpusRecording, sound: Path | bytes) -> AudioFile:
    channel = recording.channel
    if isinstance(sound, Path):
        return open_audio(sound, channel=channel)
    name = recording.segments[0].id
    return open_audio(io.BytesIO(sound), name=name, channel=channel)


def _cut(recording: CorpusRecording, segments: list[TimedText]) -> Iterator[Passage]:
    """Cut segments, which may overlap, out of a recording that is read once."""
    if not segments:
        return
    held = np.zeros(0, np.float32)
    n_before = 0  # samples before those that are held
    pieces = _pieces(recording)
    for i, segment in enumerate(segments):
        start = round(segment.start_s * SAMPLE_RATE)
        end = None
        if segment.end_s is not None:
            end = max(start, round(segment.end_s * SAMPLE_RATE))
        parts = [held]
        n_read = n_before + len(held)
        while end is None or n_read < end:
            piece = next(pieces, None)
            if piece is None:
                break
            n_read += len(piece)
            if n_read > start:  # what lies before is not kept
                parts.append(piece)
            else:
                parts, n_before = [np.zeros(0, np.float32)], n_read
        held = np.concatenate(parts)
        first = start - n_before
        samples = held[first : None if end is None else end - n_before].copy()
        if i + 1 < len(segments):
            following = round(segments[i + 1].start_s * SAMPLE_RATE)
            n_over = min(max(0, following - n_before), len(held))
            held, n_before = held[n_over:].copy(), n_before + n_over
        yield Passage(
            segment.id,
            segment.text,
            lambda samples=samples: iter([samples]),
            word_ends_ms=segment.word_ends_ms,
        )
