"""Events of several channels -> one labelled file, in order of time."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from voxmlx.events import (
    ChannelEvent,
    Event,
    Finished,
    SoundWarning,
    TokenDecoded,
    UtteranceEnd,
    WordFinal,
)
from voxmlx.text.formats import FormatOptions
from voxmlx.text.json_writers import JsonLinesWriter, JsonWriter
from voxmlx.text.subtitles import Cue, CueWriter, SrtWriter, VttWriter
from voxmlx.text.time_order import TimeOrder
from voxmlx.text.transcript import Segment, Segmenter, Transcript
from voxmlx.text.words import MAX_WORD_MS

__all__ = [
    "LIVE_UNKNOWN_MS",
    "MergedSegments",
    "SplitEvent",
    "SplitText",
    "SplitTranscriptBuilder",
    "SplitWriter",
    "make_split_writer",
    "render_split",
]

SplitEvent = ChannelEvent | SoundWarning

# A word that is not known yet began at most so long ago: the longest word, and what
# its ids lag behind its end.
_UNKNOWN_MS = MAX_WORD_MS + 2_000

LIVE_UNKNOWN_MS = 3_000
"""The same for a display, which had rather show a line sooner: a word of usual length."""


class SplitWriter(Protocol):
    """Events of several channels become one file, as with a Writer.

    An item is written once no channel can have one that starts earlier.
    """

    def feed(self, event: SplitEvent, /) -> str: ...
    def end(self) -> str: ...


class _Item(Protocol):
    @property
    def start_ms(self) -> int: ...


T = TypeVar("T", bound=_Item)
T_co = TypeVar("T_co", covariant=True)


class _Channel(Protocol[T_co]):
    """One channel's cues or segments; `start_ms` is where the unfinished one starts."""

    @property
    def start_ms(self) -> int | None: ...
    def push(self, event: Event, /) -> Sequence[T_co]: ...
    def flush(self) -> Sequence[T_co]: ...


class _Segments:
    """Segments of one channel."""

    def __init__(self) -> None:
        self._segmenter = Segmenter()

    @property
    def start_ms(self) -> int | None:
        return self._segmenter.start_ms

    def push(self, event: Event) -> list[Segment]:
        match event:
            case WordFinal(word=word):
                return self._segmenter.push(word)
            case UtteranceEnd() | Finished():
                return self._segmenter.flush()
            case _:
                return []

    def flush(self) -> list[Segment]:
        return self._segmenter.flush()


class _Merged(Generic[T]):
    """The items of all channels, in order of their starts."""

    def __init__(
        self, channels: Sequence[_Channel[T]], unknown_ms: int = _UNKNOWN_MS
    ) -> None:
        self._channels = channels
        self._unknown_ms = unknown_ms
        self._order: TimeOrder[T] = TimeOrder(len(channels))

    def push(self, event: ChannelEvent) -> list[tuple[int, T]]:
        """Return what an event makes certain, as pairs of a channel (from 0) and item."""
        index = event.channel - 1
        channel = self._channels[index]
        for item in channel.push(event.event):
            self._order.push(index, item.start_ms, item)
        match event.event:
            case Finished():
                self._order.advance(index, math.inf)
            case TokenDecoded(time_ms=time_ms):
                self._order.advance(index, time_ms - self._unknown_ms)
            case _:
                pass
        if channel.start_ms is not None:
            self._order.advance(index, channel.start_ms)
        return self._order.take()

    def flush(self) -> list[tuple[int, T]]:
        """Return what is left."""
        for index, channel in enumerate(self._channels):
            for item in channel.flush():
                self._order.push(index, item.start_ms, item)
            self._order.advance(index, math.inf)
        return self._order.take()


class MergedSegments:
    """Segments of all channels, in order of their starts, as soon as that is certain.

    A channel may have a word that began `unknown_ms` ago and is not known yet.
    """

    def __init__(self, n_channels: int, unknown_ms: int = _UNKNOWN_MS) -> None:
        self._merged = _Merged([_Segments() for _ in range(n_channels)], unknown_ms)

    def push(self, event: ChannelEvent) -> list[tuple[int, Segment]]:
        """Return what an event makes certain, as pairs of a channel (from 0) and segment."""
        return self._merged.push(event)

    def flush(self) -> list[tuple[int, Segment]]:
        """Return what is left."""
        return self._merged.flush()


class SplitText:
    """A line for each segment: `Anna: how are you`."""

    def __init__(self, labels: Sequence[str], unknown_ms: int = _UNKNOWN_MS) -> None:
        self._labels = labels
        self._merged = MergedSegments(len(labels), unknown_ms)

    def feed(self, event: SplitEvent) -> str:
        if isinstance(event, SoundWarning):
            return ""
        return self._lines(self._merged.push(event))

    def end(self) -> str:
        return self._lines(self._merged.flush())

    def _lines(self, items: Sequence[tuple[int, Segment]]) -> str:
        return "".join(f"{self._labels[c]}: {segment.text}\n" for c, segment in items)


class _SplitCues:
    """Cues of all channels in one file; those of two channels may overlap in time."""

    def __init__(self, writers: Sequence[CueWriter]) -> None:
        self._writers = writers
        self._merged: _Merged[Cue] = _Merged(writers)
        self._n_cues = 0
        self._head = writers[0].head

    def feed(self, event: SplitEvent) -> str:
        if isinstance(event, SoundWarning):
            return self._written([])
        return self._written(self._merged.push(event))

    def end(self) -> str:
        return self._written(self._merged.flush())

    def _written(self, items: Sequence[tuple[int, Cue]]) -> str:
        text, self._head = self._head, ""
        for channel, cue in items:
            self._n_cues += 1
            text += self._writers[channel].written(self._n_cues, cue)
        return text


class _SplitJson:
    """One object: segments of all channels in order, then ids and more per channel."""

    def __init__(self, labels: Sequence[str], head: Mapping[str, Any]) -> None:
        self._labels = labels
        self._head = dict(head)
        self._writers = [JsonWriter() for _ in labels]
        self._warnings = JsonWriter()

    def feed(self, event: SplitEvent) -> str:
        if isinstance(event, SoundWarning):
            return self._warnings.feed(event)
        return self._writers[event.channel - 1].feed(event.event)

    def end(self) -> str:
        contents = [writer.content() for writer in self._writers]
        is_partial = any("is_partial" in content for content in contents)
        segments: list[dict[str, Any]] = []
        channels: list[dict[str, Any]] = []
        duration_ms = max(content["duration_ms"] for content in contents)
        for number, content in enumerate(contents, 1):
            stamp = {"channel": number, "label": self._labels[number - 1]}
            segments += [stamp | segment for segment in content.pop("segments")]
            own = {k: v for k, v in content.items() if k not in _OF_THE_FILE}
            channels.append(stamp | own)
        segments.sort(key=lambda segment: segment["start_ms"])
        whole = self._head | ({"is_partial": True} if is_partial else {})
        whole |= {
            "duration_ms": duration_ms,
            "text": "\n".join(f"{s['label']}: {s['text']}" for s in segments),
            "segments": segments,
            "channels": channels,
        }
        if warnings := self._warnings.content().get("warnings"):
            whole["warnings"] = warnings
        return json.dumps(whole, ensure_ascii=False) + "\n"


_OF_THE_FILE = ("duration_ms", "is_partial", "warnings")


class _SplitJsonLines:
    """One line per event as it comes, with the channel and its label."""

    def __init__(
        self, labels: Sequence[str], head: Mapping[str, Any], options: FormatOptions
    ) -> None:
        def writer(stamp: Mapping[str, Any]) -> JsonLinesWriter:
            return JsonLinesWriter(
                has_tokens=options.has_tokens, has_ids=options.has_ids, stamp=stamp
            )

        self._file = JsonLinesWriter(dict(head) | {"labels": list(labels)})
        self._writers = [
            writer({"channel": number, "label": label})
            for number, label in enumerate(labels, 1)
        ]

    def feed(self, event: SplitEvent) -> str:
        if isinstance(event, SoundWarning):
            return self._file.feed(event)
        # `end` of a stream that has said nothing is its first line.
        return self._file.end() + self._writers[event.channel - 1].feed(event.event)

    def end(self) -> str:
        return self._file.end() + "".join(writer.end() for writer in self._writers)


class SplitTranscriptBuilder:
    """A Transcript of several channels from their events, one at a time."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._merged = MergedSegments(len(labels))
        self._segments: list[Segment] = []
        self._warnings: list[SoundWarning] = []
        self._duration_ms = 0

    def feed(self, event: SplitEvent) -> None:
        if isinstance(event, SoundWarning):
            self._warnings.append(event)
            return
        self._add(self._merged.push(event))
        if isinstance(event.event, Finished):
            self._duration_ms = max(self._duration_ms, event.event.duration_ms)

    def build(self) -> Transcript:
        """Return the transcript so far."""
        self._add(self._merged.flush())
        return Transcript(
            tuple(self._segments),
            self._duration_ms,
            tuple(self._warnings),
            self._labels,
        )

    def _add(self, items: Sequence[tuple[int, Segment]]) -> None:
        self._segments += [replace(segment, channel=c + 1) for c, segment in items]


_MAKERS: dict[
    str,
    Callable[[Sequence[str], Mapping[str, Any], FormatOptions], SplitWriter],
] = {
    "txt": lambda labels, head, options: SplitText(labels),
    "srt": lambda labels, head, options: _SplitCues(
        [SrtWriter(options.cues, label=label) for label in labels]
    ),
    "vtt": lambda labels, head, options: _SplitCues(
        [
            VttWriter(options.cues, label=label, has_word_times=options.has_word_times)
            for label in labels
        ]
    ),
    "json": lambda labels, head, options: _SplitJson(labels, head),
    "jsonl": lambda labels, head, options: _SplitJsonLines(labels, head, options),
}


def make_split_writer(
    name: str,
    labels: Sequence[str],
    options: FormatOptions | None = None,
    head: Mapping[str, Any] | None = None,
) -> SplitWriter:
    """Return the writer of a format of FORMATS for channels that have these labels."""
    return _MAKERS[name](labels, head or {}, options or FormatOptions())


def render_split(
    transcript: Transcript, name: str, options: FormatOptions | None = None
) -> str:
    """Return a transcript with labels in a format of FORMATS; json has no tokens."""
    writer = make_split_writer(name, transcript.labels, options)
    parts: list[str] = []
    for segment in transcript.segments:
        channel = segment.channel or 1
        for word in segment.words:
            event = ChannelEvent(channel, WordFinal(word, word.end_ms))
            parts.append(writer.feed(event))
        end = UtteranceEnd(segment.start_ms, segment.end_ms, segment.end_ms)
        parts.append(writer.feed(ChannelEvent(channel, end)))
    parts += [writer.feed(warning) for warning in transcript.warnings]
    for channel in range(1, len(transcript.labels) + 1):
        finished = Finished(transcript.duration_ms, 0)
        parts.append(writer.feed(ChannelEvent(channel, finished)))
    return "".join([*parts, writer.end()])
