"""Events -> subtitles: SubRip and WebVTT, as the words come."""

import unicodedata
from dataclasses import dataclass, replace

from voxmlx.events import Event, Finished, UtteranceEnd, Word, WordFinal
from voxmlx.text.transcript import Segment, Segmenter, SegmentRules, text_of, wrap
from voxmlx.text.utterances import DEFAULT_PAUSE_MS

__all__ = ["Cue", "CueRules", "CueWriter", "SrtWriter", "VttWriter"]


@dataclass(frozen=True, slots=True)
class CueRules:
    """Limits for subtitles, with the usual values as defaults.

    A cue shows at most `max_lines` lines of `max_line_chars` columns, spans at most
    `max_ms` of speech, and stays up, where the next one leaves it time, for
    `min_ms` and for as long as reading takes at `chars_per_second`. Speech that is
    faster than that and leaves no silence shares a cue with what follows.
    """

    max_line_chars: int = 42
    max_lines: int = 2
    chars_per_second: float = 17.0
    min_ms: int = 1000
    max_ms: int = 7000
    pause_ms: int = DEFAULT_PAUSE_MS

    @property
    def segments(self) -> SegmentRules:
        return SegmentRules(
            self.pause_ms,
            self.max_ms,
            self.max_line_chars,
            self.max_lines,
            self.chars_per_second,
        )


@dataclass(frozen=True, slots=True)
class Cue:
    """Words that are shown from `start_ms` to `end_ms`."""

    start_ms: int
    end_ms: int
    words: tuple[Word, ...]


class CueWriter:
    """Base of the subtitle formats: it says when a cue is certain, and its times.

    A cue is written once the next word or a pause has shown how long it may stay;
    cues never overlap, and none is shorter than a millisecond. `label` says in each
    cue who speaks.
    """

    def __init__(self, rules: CueRules | None = None, *, label: str = "") -> None:
        self.rules = rules or CueRules()
        self.label = label
        self._segmenter = Segmenter(self.rules.segments, self.shown_label)
        self._waiting: list[Segment] = []
        self._n_cues = 0
        self._last_end_ms = 0
        self._is_open = False

    @property
    def head(self) -> str:
        """Return the text with which the file begins."""
        return ""

    @property
    def shown_label(self) -> tuple[Word, ...]:
        """Return the label as words that take room on the screen."""
        return ()

    def written(self, number: int, cue: Cue) -> str:
        """One cue, in the format's form."""
        raise NotImplementedError

    @property
    def start_ms(self) -> int | None:
        """Return where the next cue starts, None if no word of it has come."""
        if self._waiting:
            return self._waiting[0].start_ms
        return self._segmenter.start_ms

    def feed(self, event: Event) -> str:
        return self._opened() + self._all_written(self.push(event))

    def end(self) -> str:
        """Return the text still due, if no `Finished` came."""
        return self._opened() + self._all_written(self.flush())

    def push(self, event: Event) -> list[Cue]:
        """Return the cues that an event makes certain."""
        match event:
            case WordFinal(word=word):
                segments = self._segmenter.push(word)
                # What ends before this word may stay until it begins.
                certain = [s for s in segments if s.words[-1] is not word]
                self._waiting += certain
                cues = self._cues(word.start_ms)
                self._waiting += segments[len(certain) :]
                return cues
            case UtteranceEnd(time_ms=time_ms):
                self._waiting += self._segmenter.flush()
                return self._cues(time_ms)
            case Finished(duration_ms=duration_ms):
                self._waiting += self._segmenter.flush()
                return self._cues(duration_ms)
            case _:
                return []

    def flush(self) -> list[Cue]:
        """Return the cues still due."""
        self._waiting += self._segmenter.flush()
        return self._cues(0)

    def _opened(self) -> str:
        if self._is_open:
            return ""
        self._is_open = True
        return self.head

    def _all_written(self, cues: list[Cue]) -> str:
        text = ""
        for cue in cues:
            self._n_cues += 1
            text += self.written(self._n_cues, cue)
        return text

    def _cues(self, free_until_ms: int) -> list[Cue]:
        """The waiting cues; the last may stay up until `free_until_ms`."""
        cues: list[Cue] = []
        for i, segment in enumerate(self._waiting):
            is_last = i + 1 == len(self._waiting)
            limit = free_until_ms if is_last else self._waiting[i + 1].start_ms
            start_ms = max(segment.start_ms, self._last_end_ms)
            n_chars = len(segment.text)
            reading_ms = max(
                self.rules.min_ms, round(1000 * n_chars / self.rules.chars_per_second)
            )
            end_ms = max(segment.end_ms, min(start_ms + reading_ms, limit))
            end_ms = max(end_ms, start_ms + 1)
            cues.append(Cue(start_ms, end_ms, segment.words))
            self._last_end_ms = end_ms
        self._waiting.clear()
        return cues


class SrtWriter(CueWriter):
    """SubRip: numbered cues, times with a comma, a label as `Anna:`."""

    @property
    def shown_label(self) -> tuple[Word, ...]:
        parts = f"{self.label}:".split() if self.label else []
        return tuple(Word(part, 0, 0) for part in parts)

    def written(self, number: int, cue: Cue) -> str:
        words = cue.words
        if label := self.shown_label:
            words = (*label, replace(words[0], lead=" "), *words[1:])
        lines = [
            _printable(_line(line)) for line in wrap(words, self.rules.max_line_chars)
        ]
        times = f"{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}"
        return "\n".join([str(number), times, *lines]) + "\n\n"


class VttWriter(CueWriter):
    """WebVTT; with `has_word_times`, a time tag before every word but a cue's first.

    A label is the cue's voice.
    """

    def __init__(
        self,
        rules: CueRules | None = None,
        *,
        label: str = "",
        has_word_times: bool = False,
    ) -> None:
        super().__init__(rules, label=label)
        self._has_word_times = has_word_times

    @property
    def head(self) -> str:
        return "WEBVTT\n\n"

    def written(self, number: int, cue: Cue) -> str:
        start_ms, end_ms = cue.start_ms, cue.end_ms
        lines: list[str] = []
        last_tag_ms = start_ms
        for line in wrap(cue.words, self.rules.max_line_chars):
            text = ""
            for i, word in enumerate(line):
                text += " " if i and word.lead else ""
                # A tag must lie within its cue and after the one before.
                if self._has_word_times and last_tag_ms < word.start_ms < end_ms:
                    text += f"<{_clock(word.start_ms, '.')}>"
                    last_tag_ms = word.start_ms
                text += _escaped(_printable(word.text))
            lines.append(text)
        if self.label:
            lines[0] = f"<v {_escaped(_printable(self.label))}>{lines[0]}"
        times = f"{_clock(start_ms, '.')} --> {_clock(end_ms, '.')}"
        return "\n".join([times, *lines]) + "\n\n"


def _clock(time_ms: int, point: str) -> str:
    """59999 -> 00:00:59,999; whole numbers all the way, so nothing rounds up."""
    seconds, ms = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"


def _line(words: list[Word]) -> str:
    return " ".join(text_of(words).split())


def _printable(text: str) -> str:
    """Text without the control characters that subtitle parsers stumble over."""
    return "".join(
        "\ufffd" if unicodedata.category(char) in ("Cc", "Cs") else char
        for char in text
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
