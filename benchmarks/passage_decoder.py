"""Many passages through one network: a batch of streams, in bounded memory."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from benchmarks.corpora.passages import Passage
from voxmlx import Checkpoint, Session
from voxmlx.batch import Batch
from voxmlx.config import SAMPLE_RATE, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.events import Finished, Word, WordFinal

__all__ = ["PassageReading", "decode_passages"]

# A stream that has less than this to hear gets its next piece.
_LOW_SAMPLES = 16 * SAMPLES_PER_AUDIO_TOKEN


@dataclass(frozen=True, slots=True)
class PassageReading:
    """Words that were heard in a passage; `busy_s` is time since the one before it."""

    passage: Passage
    words: tuple[Word, ...]
    sound_s: float
    busy_s: float

    @property
    def text(self) -> str:
        """Return the words that count."""
        ignored = self.passage.ignored_ms
        words = (
            word
            for word in self.words
            if not any(a <= (word.start_ms + word.end_ms) / 2 < b for a, b in ignored)
        )
        return "".join(word.lead + word.text for word in words).strip()


@dataclass(slots=True)
class _Stream:
    passage: Passage
    pieces: Iterator[np.ndarray]
    words: list[Word] = field(default_factory=list[Word])
    n_samples: int = 0


def decode_passages(
    checkpoint: Checkpoint,
    passages: Iterator[Passage],
    *,
    delay_ms: int,
    kv_bits: int = 16,
    n_streams: int = 8,
) -> Iterator[PassageReading]:
    """Yield what is heard of each passage, as it is done: not in order.

    `n_streams` sessions are stepped together. Only the pieces that they are about to
    hear are in memory. Raises AudioError.
    """
    batch = Batch(checkpoint.model)
    streams: dict[Session, _Stream] = {}
    started = time.perf_counter()
    is_over = False
    while streams or not is_over:
        while not is_over and len(streams) < n_streams:
            passage = next(passages, None)
            if passage is None:
                is_over = True
                break
            session = Session(checkpoint, delay_ms=delay_ms, kv_bits=kv_bits)
            streams[session] = _Stream(passage, passage.pieces())
            batch.add(session)
        for session, stream in streams.items():
            _fill(session, stream)
        for session, events in batch.step():
            stream = streams[session]
            stream.words += (e.word for e in events if isinstance(e, WordFinal))
            if isinstance(events[-1], Finished):
                del streams[session]
                now = time.perf_counter()
                sound_s = stream.n_samples / SAMPLE_RATE
                words = tuple(stream.words)
                yield PassageReading(stream.passage, words, sound_s, now - started)
                started = time.perf_counter()


def _fill(session: Session, stream: _Stream) -> None:
    timeline = session.timeline
    while not timeline.is_ended and timeline.n_waiting < _LOW_SAMPLES:
        piece = next(stream.pieces, None)
        if piece is None:
            timeline.end()
        else:
            stream.n_samples += len(piece)
            timeline.push(piece)
