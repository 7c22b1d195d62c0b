"""Words -> segments that read well, and the whole of a transcript."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from voxmlx.events import Event, Finished, UtteranceEnd, Word, WordFinal
from voxmlx.utterances import DEFAULT_PAUSE_MS

__all__ = [
    "Segment",
    "SegmentRules",
    "Segmenter",
    "Transcript",
    "TranscriptBuilder",
    "columns",
    "text_of",
    "wrap",
]

_SENTENCE_ENDS = frozenset(".!?…。！？｡؟۔।")
# What may follow the sign that ends a sentence.
_CLOSING = "\"'”’»)]」』）"
# A full stop this soon is an abbreviation or an ordinal more often than an end.
_MIN_SENTENCE_CHARS = 12


def text_of(words: Sequence[Word]) -> str:
    """The words as they were written, without what led up to the first."""
    return "".join(word.lead + word.text for word in words)[len(words[0].lead) :]


def columns(text: str) -> int:
    """Return the width of text: Chinese, Japanese, Korean and emoji count two."""
    return sum(
        0
        if unicodedata.category(char)[0] == "M"
        else 2
        if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in text
    )


def wrap(words: Sequence[Word], max_columns: int | None) -> list[list[Word]]:
    """The words in as few lines as fit, and those as even as they can be.

    A word wider than a line has one to itself. None is one line.
    """
    if max_columns is None:
        return [list(words)]
    widths = [columns(" " * (word.lead != "") + word.text) for word in words]
    lines = _filled(words, widths, max_columns)
    narrow, wide = 1, max_columns
    while narrow < wide:
        middle = (narrow + wide) // 2
        if len(_filled(words, widths, middle)) > len(lines):
            narrow = middle + 1
        else:
            wide = middle
    return _filled(words, widths, narrow)


def _filled(
    words: Sequence[Word], widths: Sequence[int], max_columns: int
) -> list[list[Word]]:
    lines: list[list[Word]] = []
    n = 0
    for word, width in zip(words, widths, strict=True):
        if lines and n + width <= max_columns:
            lines[-1].append(word)
            n += width
        else:
            lines.append([word])
            n = width - (word.lead != "")
    return lines


@dataclass(frozen=True, slots=True)
class Segment:
    """Words in a row, without a pause between them."""

    words: tuple[Word, ...]

    @property
    def start_ms(self) -> int:
        return self.words[0].start_ms

    @property
    def end_ms(self) -> int:
        return self.words[-1].end_ms

    @property
    def text(self) -> str:
        """The words as they were written, white space made single spaces."""
        return " ".join(text_of(self.words).split())


@dataclass(frozen=True, slots=True)
class SegmentRules:
    """Rules for the end of a segment: a pause, a sentence's end, or its length.

    It is full when one more word would make it last longer than `max_ms`, or need
    more than `max_lines` lines of `max_line_chars` columns (None: no limit).
    """

    pause_ms: int = DEFAULT_PAUSE_MS
    max_ms: int = 30_000
    max_line_chars: int | None = None
    max_lines: int = 2


class Segmenter:
    """Segments out of words, in order, each as soon as it is certain.

    Holds the words of one segment, whose number the rules' limits bound.
    """

    def __init__(self, rules: SegmentRules | None = None) -> None:
        self._rules = rules or SegmentRules()
        self._words: list[Word] = []

    def push(self, word: Word) -> list[Segment]:
        """The next word; the segments that end before it or with it."""
        segments = self.flush() if self._ends_before(word) else []
        self._words.append(word)
        if _ends_sentence(self._words):
            segments += self.flush()
        return segments

    def flush(self) -> list[Segment]:
        """Return the words of the unfinished segment."""
        words, self._words = tuple(self._words), []
        return [Segment(words)] if words else []

    def _ends_before(self, word: Word) -> bool:
        if not self._words:
            return False
        rules = self._rules
        if (
            word.start_ms - self._words[-1].end_ms >= rules.pause_ms
            or word.end_ms - self._words[0].start_ms > rules.max_ms
        ):
            return True
        if rules.max_line_chars is None:
            return False
        lines = wrap([*self._words, word], rules.max_line_chars)
        return len(lines) > rules.max_lines


def _ends_sentence(words: Sequence[Word]) -> bool:
    text = words[-1].text.rstrip(_CLOSING)
    if not text or text[-1] not in _SENTENCE_ENDS:
        return False
    return text[-1] != "." or columns(text_of(words)) >= _MIN_SENTENCE_CHARS


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words of a stream, in segments."""

    segments: tuple[Segment, ...]
    duration_ms: int

    @classmethod
    def from_events(
        cls, events: Iterable[Event], rules: SegmentRules | None = None
    ) -> "Transcript":
        """Collect a session's events. Grows with the stream, as no session does."""
        builder = TranscriptBuilder(rules)
        for event in events:
            builder.feed(event)
        return builder.build()

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)

    @property
    def text(self) -> str:
        """The words as they were written."""
        words = self.words
        return text_of(words) if words else ""


class TranscriptBuilder:
    """A Transcript from events, one at a time; a session may go on meanwhile."""

    def __init__(self, rules: SegmentRules | None = None) -> None:
        self._segmenter = Segmenter(rules)
        self._segments: list[Segment] = []
        self._duration_ms = 0

    def feed(self, event: Event) -> None:
        match event:
            case WordFinal(word=word):
                self._segments += self._segmenter.push(word)
            case UtteranceEnd():
                self._segments += self._segmenter.flush()
            case Finished(duration_ms=duration_ms):
                self._duration_ms = duration_ms
            case _:
                pass

    def build(self) -> Transcript:
        """Return the transcript so far; `duration_ms` is 0 before a `Finished`."""
        self._segments += self._segmenter.flush()
        return Transcript(tuple(self._segments), self._duration_ms)
