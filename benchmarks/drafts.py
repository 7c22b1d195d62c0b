"""A draft shows words sooner: by how much, and how many of them change later."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.ratios import Spread
from benchmarks.speech_sets import Utterance
from benchmarks.word_times import Marked, in_one_stream, recognized
from tests.held_out import SEEN, held_out
from voxmlx import Checkpoint, DraftChanged, Session, TextDelta, Word, WordFinal
from voxmlx.config import AUDIO_TOKEN_MS, SAMPLES_PER_AUDIO_TOKEN

__all__ = ["DraftFigures", "changes", "first_times", "marked_stream", "measure"]


@dataclass(frozen=True, slots=True)
class DraftFigures:
    """From a word's end to its showing, in ms of sound; computing is not in it.

    `n_changed` of `n_drafted` words that a draft showed were shown otherwise later.
    """

    n_words: int
    first_shown_ms: Spread
    confirmed_ms: Spread
    n_drafted: int
    n_changed: int

    def __str__(self) -> str:
        return (
            f"{self.n_words} words: from a word's end to its first showing p50 "
            f"{self.first_shown_ms.p50:.0f} ms, p95 {self.first_shown_ms.p95:.0f}; until "
            f"it is confirmed p50 {self.confirmed_ms.p50:.0f}, p95 "
            f"{self.confirmed_ms.p95:.0f}; {self.n_changed} of {self.n_drafted} drafted "
            "words changed"
        )


def marked_stream(n_of_each: int) -> tuple[np.ndarray, list[Marked]]:
    """Held-out sentences of the demo in one stream, with the ends of their words."""
    said = [
        Utterance(s.samples, s.text, tuple(map(float, s.word_ends_ms)))
        for kind in SEEN
        for s in held_out(kind)[:n_of_each]
    ]
    return in_one_stream(said, pause_s=0.7)


def measure(
    checkpoint: Checkpoint,
    sound: np.ndarray,
    marks: Sequence[Marked],
    *,
    delay_ms: int,
    draft_delay_ms: int | None,
) -> DraftFigures:
    """Stream `sound` [n] in pieces of 80 ms, and note what is shown after each."""
    session = Session(checkpoint, delay_ms=delay_ms, draft_delay_ms=draft_delay_ms)
    text = draft = ""
    words: list[Word] = []
    shown: list[tuple[float, list[str], int]] = []  # time, words, confirmed ones
    n_pieces = -(-len(sound) // SAMPLES_PER_AUDIO_TOKEN)
    for i in range(n_pieces + 1):
        start = i * SAMPLES_PER_AUDIO_TOKEN
        piece = sound[start : start + SAMPLES_PER_AUDIO_TOKEN]
        for event in session.push(piece) if i < n_pieces else session.finish():
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, DraftChanged):
                draft = event.text
            elif isinstance(event, WordFinal):
                words.append(event.word)
        now_ms = (i + 1) * AUDIO_TOKEN_MS
        shown.append((now_ms, (text + draft).split(), len(text.split())))
    final = [word.text for word in words]
    first = first_times([(at, all_words) for at, all_words, _ in shown], final)
    confirmed = first_times([(at, some[:n]) for at, some, n in shown], final)
    places = {id(word): i for i, word in enumerate(words)}
    pairs = [(mark, places[id(word)]) for mark, word in recognized(marks, words)]
    n_drafted, n_changed = changes(shown)
    return DraftFigures(
        len(pairs),
        Spread.of([first[i] - mark.end_ms for mark, i in pairs if i in first]),
        Spread.of([confirmed[i] - mark.end_ms for mark, i in pairs if i in confirmed]),
        n_drafted,
        n_changed,
    )


def first_times(
    shown: Sequence[tuple[float, Sequence[str]]], final: Sequence[str]
) -> dict[int, float]:
    """Return when each word of `final` first stood in its place, by place."""
    times: dict[int, float] = {}
    for at, words in shown:
        for i, (word, last) in enumerate(zip(words, final, strict=False)):
            if word == last:
                times.setdefault(i, at)
    return times


def changes(shown: Sequence[tuple[float, Sequence[str], int]]) -> tuple[int, int]:
    """Count places that had a drafted word, and those where it became another.

    A word that grows, as "heat" to "heating", is no other word.
    """
    drafted: dict[int, str] = {}
    changed: set[int] = set()
    for _, words, n_confirmed in shown:
        for i, word in enumerate(words):
            if i in drafted and not word.startswith(drafted[i]):
                changed.add(i)
            if i >= n_confirmed or i in drafted:
                drafted[i] = word
    return len(drafted), len(changed)
