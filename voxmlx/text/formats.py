"""Events -> text files: txt, srt, vtt, json, jsonl; all but json as they come."""

import json
import unicodedata
from array import array
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from voxmlx.events import (
    Alternative,
    Event,
    Finished,
    GuardActed,
    Recovered,
    SoundWarning,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.text.transcript import (
    Segment,
    Segmenter,
    SegmentRules,
    Transcript,
    TranscriptBuilder,
    text_of,
    wrap,
)
from voxmlx.text.utterances import DEFAULT_PAUSE_MS

__all__ = [
    "FORMATS",
    "CueRules",
    "FormatOptions",
    "JsonLinesWriter",
    "JsonWriter",
    "SrtWriter",
    "TxtWriter",
    "VttWriter",
    "Writer",
    "make_writer",
    "render",
]


# Two seconds: so much is decoded again after a crash.
_IDS_PER_LINE = 25


class Writer(Protocol):
    """One stream's events become one file.

    Whatever `feed` and `end` return is to be appended; after each the file is
    complete as far as it goes (a JsonWriter's is empty until `end`).
    """

    def feed(self, event: Event, /) -> str: ...
    def end(self) -> str: ...


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


class TxtWriter:
    """The words as they were written, without white space around the whole."""

    def __init__(self) -> None:
        self._has_begun = False

    def feed(self, event: Event) -> str:
        if not isinstance(event, WordFinal):
            return ""
        lead = event.word.lead if self._has_begun else ""
        self._has_begun = True
        return lead + event.word.text

    def end(self) -> str:
        return "\n"


class _CueWriter:
    """What subtitle formats share: when a cue is certain, and its times.

    A cue is written once the next word or a pause has shown how long it may stay;
    cues never overlap, and none is shorter than a millisecond.
    """

    def __init__(self, rules: CueRules | None = None) -> None:
        self.rules = rules or CueRules()
        self._segmenter = Segmenter(self.rules.segments)
        self._waiting: list[Segment] = []
        self._n_cues = 0
        self._last_end_ms = 0
        self._is_open = False

    def head(self) -> str:
        """Return the text with which the file begins."""
        raise NotImplementedError

    def cue(
        self, number: int, start_ms: int, end_ms: int, words: tuple[Word, ...]
    ) -> str:
        """One cue, in the format's form."""
        raise NotImplementedError

    def feed(self, event: Event) -> str:
        text = self._opened()
        match event:
            case WordFinal(word=word):
                segments = self._segmenter.push(word)
                # What ends before this word may stay until it begins.
                certain = [s for s in segments if s.words[-1] is not word]
                self._waiting += certain
                text += self._write(word.start_ms)
                self._waiting += segments[len(certain) :]
            case UtteranceEnd(time_ms=time_ms):
                self._waiting += self._segmenter.flush()
                text += self._write(time_ms)
            case Finished(duration_ms=duration_ms):
                self._waiting += self._segmenter.flush()
                text += self._write(duration_ms)
            case _:
                pass
        return text

    def end(self) -> str:
        """Return the text still due, if no `Finished` came."""
        self._waiting += self._segmenter.flush()
        return self._opened() + self._write(0)

    def _opened(self) -> str:
        if self._is_open:
            return ""
        self._is_open = True
        return self.head()

    def _write(self, free_until_ms: int) -> str:
        """The waiting cues; the last may stay up until `free_until_ms`."""
        text = ""
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
            self._n_cues += 1
            text += self.cue(self._n_cues, start_ms, end_ms, segment.words)
            self._last_end_ms = end_ms
        self._waiting.clear()
        return text


class SrtWriter(_CueWriter):
    """SubRip: numbered cues, times with a comma."""

    def head(self) -> str:
        return ""

    def cue(
        self, number: int, start_ms: int, end_ms: int, words: tuple[Word, ...]
    ) -> str:
        lines = [
            _printable(_line(line)) for line in wrap(words, self.rules.max_line_chars)
        ]
        times = f"{_clock(start_ms, ',')} --> {_clock(end_ms, ',')}"
        return "\n".join([str(number), times, *lines]) + "\n\n"


class VttWriter(_CueWriter):
    """WebVTT; with `has_word_times`, a time tag before every word but a cue's first."""

    def __init__(
        self, rules: CueRules | None = None, *, has_word_times: bool = False
    ) -> None:
        super().__init__(rules)
        self._has_word_times = has_word_times

    def head(self) -> str:
        return "WEBVTT\n\n"

    def cue(
        self, number: int, start_ms: int, end_ms: int, words: tuple[Word, ...]
    ) -> str:
        lines: list[str] = []
        last_tag_ms = start_ms
        for line in wrap(words, self.rules.max_line_chars):
            text = ""
            for i, word in enumerate(line):
                text += " " if i and word.lead else ""
                # A tag must lie within its cue and after the one before.
                if self._has_word_times and last_tag_ms < word.start_ms < end_ms:
                    text += f"<{_clock(word.start_ms, '.')}>"
                    last_tag_ms = word.start_ms
                text += _escaped(_printable(word.text))
            lines.append(text)
        times = f"{_clock(start_ms, '.')} --> {_clock(end_ms, '.')}"
        return "\n".join([times, *lines]) + "\n\n"


class JsonWriter:
    """One object per stream: `head`, then duration_ms, text, segments and tokens.

    Segments hold their words, with times and confidence. It is all written at the
    end, so what it holds grows with the stream. `is_partial` is there, and true, if
    the stream was broken off.
    """

    def __init__(
        self,
        head: Mapping[str, Any] | None = None,
        rules: SegmentRules | None = None,
    ) -> None:
        self._head = dict(head or {})
        self._builder = TranscriptBuilder(rules)
        self._tokens = array("I")
        self._alternatives: list[list[dict[str, Any]]] = []
        self._guards: list[dict[str, Any]] = []
        self._recoveries: list[dict[str, Any]] = []
        self._warnings: list[dict[str, Any]] = []
        self._is_finished = False
        self._time_ms = 0

    def feed(self, event: Event) -> str:
        self._builder.feed(event)
        match event:
            case TokenDecoded(token_id=token_id, alternatives=alternatives):
                self._time_ms = event.time_ms
                self._tokens.append(token_id)
                if alternatives:
                    self._alternatives.append([_alternative(a) for a in alternatives])
            case GuardActed():
                self._guards.append(asdict(event))
            case Recovered():
                self._recoveries.append(asdict(event))
            case SoundWarning():
                self._warnings.append(asdict(event))
            case Finished():
                self._is_finished = True
            case _:
                pass
        return ""

    def end(self) -> str:
        transcript = self._builder.build()
        partial: dict[str, Any] = {} if self._is_finished else {"is_partial": True}
        content = self._head | partial
        content |= {
            "duration_ms": transcript.duration_ms or self._time_ms,
            "text": transcript.text,
            "segments": [
                {
                    "start_ms": segment.start_ms,
                    "end_ms": segment.end_ms,
                    "text": segment.text,
                    "words": [_word(word) for word in segment.words],
                }
                for segment in transcript.segments
            ],
            "tokens": self._tokens.tolist(),
        }
        if self._alternatives:
            content["alternatives"] = self._alternatives
        if self._guards:
            content["guards"] = self._guards
        if self._recoveries:
            content["recoveries"] = self._recoveries
        if self._warnings:
            content["warnings"] = self._warnings
        return json.dumps(content, ensure_ascii=False) + "\n"


class JsonLinesWriter:
    """One object per event, as it comes, told apart by its `type`.

    There are 12.5 ids in every second. With `has_tokens` each has a line of its own,
    with `has_ids` 25 of them share one, else they are left out. A file with ids can be
    gone on with after a crash: see `read_journal`.
    """

    def __init__(
        self,
        head: Mapping[str, Any] | None = None,
        *,
        has_tokens: bool = False,
        has_ids: bool = False,
    ) -> None:
        self._head = dict(head or {})
        self._has_tokens = has_tokens
        self._has_ids = has_ids
        self._tokens: list[TokenDecoded] = []

    def feed(self, event: Event) -> str:
        text = self._opened()
        match event:
            case TokenDecoded() if not self._has_tokens:
                if self._has_ids:
                    self._tokens.append(event)
                if len(self._tokens) == _IDS_PER_LINE:
                    text += self._ids()
                return text
            case TokenDecoded(alternatives=alternatives):
                fields: dict[str, Any] = {
                    "type": "token",
                    "token_id": event.token_id,
                    "index": event.index,
                    "time_ms": event.time_ms,
                }
                if event.logprob is not None:
                    fields["logprob"] = _exact(event.logprob)
                if event.guard is not None:
                    fields["guard"] = event.guard
                if event.recovered is not None:
                    fields["recovered"] = event.recovered
                if alternatives:
                    fields["alternatives"] = [_alternative(a) for a in alternatives]
            case TextDelta():
                fields = {"type": "text_delta"} | asdict(event)
            case WordFinal(word=word, time_ms=time_ms):
                fields = {"type": "word"} | _word(word) | {"time_ms": time_ms}
            case UtteranceEnd():
                fields = {"type": "utterance_end"} | asdict(event)
            case GuardActed():
                fields = {"type": "guard"} | asdict(event)
            case Recovered():
                fields = {"type": "recovered"} | asdict(event)
            case SoundWarning():
                fields = {"type": "warning"} | asdict(event)
            case Finished():
                text += self._ids()
                fields = {"type": "finished"} | asdict(event)
        return text + json.dumps(fields, ensure_ascii=False) + "\n"

    def end(self) -> str:
        return self._opened() + self._ids()

    def _ids(self) -> str:
        """The ids that wait for their line."""
        tokens, self._tokens = self._tokens, []
        if not tokens:
            return ""
        fields: dict[str, Any] = {
            "type": "tokens",
            "index": tokens[0].index,
            "token_ids": [token.token_id for token in tokens],
        }
        if all(token.logprob is not None for token in tokens):
            fields["logprobs"] = [_exact(token.logprob or 0.0) for token in tokens]
        guards = {str(t.index): t.guard for t in tokens if t.guard is not None}
        if guards:
            fields["guards"] = guards
        recovered = {str(t.index): t.recovered for t in tokens if t.recovered}
        if recovered:
            fields["recovered"] = recovered
        return json.dumps(fields) + "\n"

    def _opened(self) -> str:
        head, self._head = self._head, {}
        if not head:
            return ""
        return json.dumps({"type": "stream"} | head, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class FormatOptions:
    """Options of all formats; each format uses the options that concern it."""

    cues: CueRules = field(default_factory=CueRules)
    has_word_times: bool = False
    has_tokens: bool = False
    has_ids: bool = False


_MAKERS: dict[str, Callable[[Mapping[str, Any], FormatOptions], Writer]] = {
    "txt": lambda head, options: TxtWriter(),
    "srt": lambda head, options: SrtWriter(options.cues),
    "vtt": lambda head, options: VttWriter(
        options.cues, has_word_times=options.has_word_times
    ),
    "json": lambda head, options: JsonWriter(head),
    "jsonl": lambda head, options: JsonLinesWriter(
        head, has_tokens=options.has_tokens, has_ids=options.has_ids
    ),
}
FORMATS = tuple(_MAKERS)


def render(
    transcript: Transcript, name: str, options: FormatOptions | None = None
) -> str:
    """Return a whole transcript in a format of FORMATS. json then has no tokens."""
    writer = make_writer(name, options)
    parts: list[str] = []
    for segment in transcript.segments:
        parts += [writer.feed(WordFinal(w, w.end_ms)) for w in segment.words]
        end = UtteranceEnd(segment.start_ms, segment.end_ms, segment.end_ms)
        parts.append(writer.feed(end))
    parts += [writer.feed(warning) for warning in transcript.warnings]
    parts.append(writer.feed(Finished(transcript.duration_ms, 0)))
    return "".join([*parts, writer.end()])


def make_writer(
    name: str,
    options: FormatOptions | None = None,
    head: Mapping[str, Any] | None = None,
) -> Writer:
    """The writer of a format of FORMATS, for one stream.

    `head` says where the stream is from, in the formats that have a place for it.
    """
    return _MAKERS[name](head or {}, options or FormatOptions())


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


def _word(word: Word) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "text": word.text,
        "start_ms": word.start_ms,
        "end_ms": word.end_ms,
    }
    if word.confidence is not None:
        fields["confidence"] = round(word.confidence, 4)
    return fields


def _exact(logprob: float) -> float:
    """With nine digits, from which a float32 can be read to its last bit."""
    return float(f"{logprob:.9g}")


def _alternative(alternative: Alternative) -> dict[str, Any]:
    return {
        "token_id": alternative.token_id,
        "text": alternative.text,
        "logprob": round(alternative.logprob, 4),
    }
