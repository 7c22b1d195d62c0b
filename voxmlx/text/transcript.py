"""Words -> segments that read well, and the whole of a transcript."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module

from voxmlx.events import (
    Event,
    Finished,
    SoundWarning,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.text.line_breaks import (
    Break,
    best_break,
    columns,
    ends_clause,
    ends_sentence,
    last_sign,
    may_break,
)
from voxmlx.text.utterances import DEFAULT_PAUSE_MS

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

# A full stop this soon is an abbreviation or an ordinal more often than an end.
_MIN_SENTENCE_CHARS = 12


def text_of(words: Sequence[Word]) -> str:
    """The words as they were written, without what led up to the first."""
    return "".join(word.lead + word.text for word in words)[len(words[0].lead) :]


def wrap(words: Sequence[Word], max_columns: int | None) -> list[list[Word]]:
    """Return the words in as few lines as fit, and those as even as they can be.

    Lines of languages without spaces end after punctuation where they can, and never
    where `may_break` forbids. A word wider than a line has one to itself. None is one
    line.
    """
    if max_columns is None:
        return [list(words)]
    if not words:
        return []
    measured = _measured(words)
    n_lines = len(_filled(measured, max_columns, max_columns))
    for ends_well in (True, False):
        for width in range(1, max_columns + 1):
            starts = _filled(measured, width, max_columns, prefers_clauses=ends_well)
            is_good = all(measured[i].is_good_end for i in starts[1:])
            if len(starts) <= n_lines and (is_good or not ends_well):
                ends = [*starts[1:], len(words)]
                return [list(words[a:z]) for a, z in zip(starts, ends, strict=True)]
    raise AssertionError("lines of the greatest width are as few as can be")


@dataclass(frozen=True, slots=True)
class _Measured:
    """A word's columns, `n_lead` of them before it, and how a line may end there."""

    n_columns: int
    n_lead: int
    may_begin_line: bool
    is_after_clause: bool

    @property
    def is_good_end(self) -> bool:
        """Return whether a line ends well before the word."""
        return self.n_lead > 0 or self.is_after_clause


def _measured(words: Sequence[Word]) -> list[_Measured]:
    return [
        _Measured(
            columns(word.text) + (word.lead != ""),
            int(word.lead != ""),
            i > 0 and _may_break_before(words, i),
            i > 0 and ends_clause(words[i - 1].text),
        )
        for i, word in enumerate(words)
    ]


def _may_break_before(words: Sequence[Word], index: int) -> bool:
    before, word = words[index - 1], words[index]
    if not word.text or not before.text:
        return True
    return may_break(" " if word.lead else before.text[-1], word.text[0])


def _filled(
    words: Sequence[_Measured],
    width: int,
    max_columns: int,
    *,
    prefers_clauses: bool = False,
) -> list[int]:
    """The first word of each line, where lines are filled up to `width`.

    A line that may not end before that grows up to `max_columns`.
    """
    starts: list[int] = []
    start = 0
    while start < len(words):
        starts.append(start)
        start = _line_end(words, start, width, max_columns, prefers_clauses)
    return starts


def _line_end(
    words: Sequence[_Measured],
    start: int,
    width: int,
    max_columns: int,
    prefers_clauses: bool,
) -> int:
    n = words[start].n_columns - words[start].n_lead
    breaks: list[Break] = []
    for i in range(start + 1, len(words)):
        word = words[i]
        if word.may_begin_line and (n <= width or not breaks):
            is_after_clause = prefers_clauses and word.is_after_clause
            breaks.append(Break(i, n, word.n_lead > 0, is_after_clause))
        n += word.n_columns
        if n > (width if breaks else max_columns):
            best = best_break(breaks, width)
            return best.index if best is not None else i
    return len(words)


@dataclass(frozen=True, slots=True)
class Segment:
    """Words in a row, without a pause between them.

    `channel` counts from 1 where the channels of a file are split.
    """

    words: tuple[Word, ...]
    channel: int | None = None

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
    more than `max_lines` lines of `max_line_chars` columns (None: no limit). Then it
    ends after a sentence, or else after other punctuation in its second half, or else
    at the last place where a line may end.

    A sentence that is spoken faster than `chars_per_second` (None: no limit) ends no
    segment, unless a silence after it gives time to read: it goes on with the next
    sentence, which may be slower.
    """

    pause_ms: int = DEFAULT_PAUSE_MS
    max_ms: int = 30_000
    max_line_chars: int | None = None
    max_lines: int = 2
    chars_per_second: float | None = None


class Segmenter:
    """Segments out of words, in order, each as soon as it is certain.

    Holds the words of one segment, whose number the rules' limits bound.
    """

    def __init__(
        self, rules: SegmentRules | None = None, label: Sequence[Word] = ()
    ) -> None:
        """`label` is shown before each segment and takes room there."""
        self._rules = rules or SegmentRules()
        self._label = tuple(label)
        self._words: list[Word] = []

    @property
    def start_ms(self) -> int | None:
        """Return where the unfinished segment starts, None if there is none."""
        return self._words[0].start_ms if self._words else None

    def push(self, word: Word) -> list[Segment]:
        """The next word; the segments that end before it or with it."""
        segments: list[Segment] = []
        if self._ends_before(word):
            segments += self.flush()
        while self._words and self._is_full(word):
            n = _best_end([*self._words, word])
            segments.append(Segment(tuple(self._words[:n])))
            self._words = self._words[n:]
        self._words.append(word)
        if _ends_sentence(self._words) and self._is_readable(word.end_ms):
            segments += self.flush()
        return segments

    def flush(self) -> list[Segment]:
        """Return the words of the unfinished segment."""
        words, self._words = tuple(self._words), []
        return [Segment(words)] if words else []

    def _ends_before(self, word: Word) -> bool:
        """Whether there is a pause before the next word, or a sentence has ended."""
        if not self._words:
            return False
        if word.start_ms - self._words[-1].end_ms >= self._rules.pause_ms:
            return True
        return _ends_sentence(self._words) and self._is_readable(word.start_ms)

    def _is_full(self, word: Word) -> bool:
        rules = self._rules
        if word.end_ms - self._words[0].start_ms > rules.max_ms:
            return True
        if rules.max_line_chars is None:
            return False
        measured = _measured([*self._label, *self._words, word])
        lines = _filled(measured, rules.max_line_chars, rules.max_line_chars)
        return len(lines) > rules.max_lines

    def _is_readable(self, until_ms: int) -> bool:
        """Whether the words so far can be read until then."""
        speed = self._rules.chars_per_second
        if speed is None:
            return True
        n_chars = len(Segment(tuple(self._words)).text)
        return 1000 * n_chars <= speed * (until_ms - self._words[0].start_ms)


def _best_end(words: Sequence[Word]) -> int:
    """How many words, not all, make a segment that ends well."""
    places = [n for n in range(1, len(words)) if _may_break_before(words, n)]
    n_columns = columns(text_of(words))
    for n in reversed(places):
        if _ends_sentence(words[:n]):
            return n
    for n in reversed(places):
        is_long = 2 * columns(text_of(words[:n])) >= n_columns
        if is_long and ends_clause(words[n - 1].text):
            return n
    return places[-1] if places else len(words) - 1


def _ends_sentence(words: Sequence[Word]) -> bool:
    text = words[-1].text
    if not ends_sentence(text):
        return False
    return last_sign(text) != "." or columns(text_of(words)) >= _MIN_SENTENCE_CHARS


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words of a stream, in segments.

    `warnings` say what was wrong with the sound of a file. `labels` name its channels
    where they are split; segments are then in order of their starts.
    """

    segments: tuple[Segment, ...]
    duration_ms: int
    warnings: tuple[SoundWarning, ...] = ()
    labels: tuple[str, ...] = ()

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
        """The words as they were written; with labels, a line for each segment."""
        if self.labels:
            return self._render("txt").removesuffix("\n")
        words = self.words
        return text_of(words) if words else ""

    def to_srt(self) -> str:
        """Return the transcript as SubRip subtitles."""
        return self._render("srt")

    def to_vtt(self) -> str:
        """Return the transcript as WebVTT subtitles."""
        return self._render("vtt")

    def to_json(self) -> str:
        """Return text, segments, words with their times, and warnings as JSON."""
        return self._render("json")

    def _render(self, format_name: str) -> str:
        # By name: the formats stand above, on what a transcript is.
        if self.labels:
            split = import_module("voxmlx.text.split_writers")
            return split.render_split(self, format_name)
        return import_module("voxmlx.text.formats").render(self, format_name)


class TranscriptBuilder:
    """A Transcript from events, one at a time; a session may go on meanwhile."""

    def __init__(self, rules: SegmentRules | None = None) -> None:
        self._segmenter = Segmenter(rules)
        self._segments: list[Segment] = []
        self._warnings: list[SoundWarning] = []
        self._duration_ms = 0

    def feed(self, event: Event) -> None:
        match event:
            case WordFinal(word=word):
                self._segments += self._segmenter.push(word)
            case UtteranceEnd():
                self._segments += self._segmenter.flush()
            case SoundWarning():
                self._warnings.append(event)
            case Finished(duration_ms=duration_ms):
                self._duration_ms = duration_ms
            case _:
                pass

    def build(self) -> Transcript:
        """Return the transcript so far; `duration_ms` is 0 before a `Finished`."""
        self._segments += self._segmenter.flush()
        return Transcript(
            tuple(self._segments), self._duration_ms, tuple(self._warnings)
        )
