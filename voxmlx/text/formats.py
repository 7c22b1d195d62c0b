"""Events -> text files: txt, srt, vtt, json, jsonl; all but json as they come."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from voxmlx.events import Event, Finished, UtteranceEnd, WordFinal
from voxmlx.text.json_writers import JsonLinesWriter, JsonWriter
from voxmlx.text.subtitles import CueRules, SrtWriter, VttWriter
from voxmlx.text.transcript import Transcript

__all__ = [
    "FORMATS",
    "FormatOptions",
    "TxtWriter",
    "Writer",
    "make_writer",
    "render",
]


class Writer(Protocol):
    """One stream's events become one file.

    Whatever `feed` and `end` return is to be appended; after each the file is
    complete as far as it goes (a JsonWriter's is empty until `end`).
    """

    def feed(self, event: Event, /) -> str: ...
    def end(self) -> str: ...


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
