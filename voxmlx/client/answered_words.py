"""The answer to a request for a transcript -> words with times, and events."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from voxmlx.errors import ServerError
from voxmlx.events import (
    Event,
    Finished,
    SoundWarning,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.text.replacements import Replacements

__all__ = ["Answered", "answered_events", "read_answer"]

# Between two words: what belongs to the first, white space, what belongs to the next.
_BETWEEN = re.compile(r"(\S*)(\s*)(.*)", re.DOTALL)

# How long after a word's end a pause is known: what it lasts, and two audio tokens.
_KNOWN_MS = 160


@dataclass(frozen=True, slots=True)
class Answered:
    """A server's words about one file or piece of one.

    `has_times` is False where it told text alone; all times are 0 then. Those of
    words are estimated where `is_estimated`: only times of segments were told.
    """

    words: tuple[Word, ...]
    duration_ms: int
    has_times: bool
    is_estimated: bool = False
    warnings: tuple[SoundWarning, ...] = ()

    def later(self, ms: int) -> "Answered":
        """Return the same of a piece that begins at `ms`."""
        words = tuple(
            replace(word, start_ms=word.start_ms + ms, end_ms=word.end_ms + ms)
            for word in self.words
        )
        return replace(self, words=words, duration_ms=self.duration_ms + ms)


def read_answer(content: Mapping[str, Any]) -> Answered:
    """Return what a JSON answer says, with as good times as it has.

    Raises ServerError for what is no answer of the dialect.
    """
    try:
        return _read(content)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ServerError(
            f"the server's answer is not of OpenAI's dialect: {error!r}"
        ) from None


def answered_events(
    pieces: Sequence[Answered],
    duration_ms: int,
    *,
    replacements: Mapping[str, str],
    pause_ms: int,
) -> Iterator[Event]:
    """Yield the events that the pieces of one file, in order, make certain."""
    rewriting = Replacements(replacements)
    for piece in pieces:
        yield from piece.warnings
    words = [word for piece in pieces for word in piece.words]
    start_ms = words[0].start_ms if words else 0
    for word, following in zip(words, [*words[1:], None], strict=True):
        is_pause = following is None or following.start_ms - word.end_ms >= pause_ms
        certain = rewriting.push(word)
        certain += rewriting.flush() if is_pause else []
        yield from (WordFinal(one, word.end_ms) for one in certain)
        if is_pause:
            known_ms = word.end_ms + pause_ms + _KNOWN_MS
            limit_ms = duration_ms if following is None else following.start_ms
            known_ms = max(word.end_ms, min(known_ms, limit_ms))
            yield UtteranceEnd(start_ms, word.end_ms, known_ms)
            start_ms = 0 if following is None else following.start_ms
    yield Finished(duration_ms, 0)


def _read(content: Mapping[str, Any]) -> Answered:
    text = content["text"]
    if not isinstance(text, str):
        raise TypeError(f"text is a {type(text).__name__}")
    duration_ms = _ms(content.get("duration") or 0)
    warnings = tuple(
        SoundWarning(str(one["code"]), str(one["message"]), int(one["time_ms"]))
        for one in content.get("warnings") or ()
    )
    if words := content.get("words"):
        timed = [_timed(one, "word") for one in words]
        found = tuple(_placed(text, timed))
        return Answered(found, duration_ms, True, warnings=warnings)
    if segments := content.get("segments"):
        parts = [word for one in segments for word in _spread(_timed(one, "text"))]
        return Answered(tuple(parts), duration_ms, True, True, warnings)
    has_times = not text.strip() and "duration" in content
    plain = tuple(_placed(text, [Word(one, 0, 0) for one in text.split()]))
    return Answered(plain, duration_ms, has_times, warnings=warnings)


def _ms(seconds: Any) -> int:
    return round(1000 * float(seconds))


def _timed(one: Mapping[str, Any], name: str) -> Word:
    """Return a word or a segment with its times in whole milliseconds, in order."""
    text = one[name]
    if not isinstance(text, str):
        raise TypeError(f"{name} is a {type(text).__name__}")
    start_ms = max(0, _ms(one["start"]))
    confidence = one.get("confidence")
    return Word(
        text.strip(),
        start_ms,
        max(start_ms, _ms(one["end"])),
        None if confidence is None else float(confidence),
    )


def _placed(text: str, words: Sequence[Word]) -> Iterator[Word]:
    """Yield the words as the text writes them, with what stands between.

    Some servers tell words without their punctuation: that is the text's. White space
    before a word is its lead.
    """
    at = 0
    waiting: Word | None = None
    for word in words:
        place = text.find(word.text, at) if word.text else -1
        between = text[at:place] if place >= 0 else " "
        at = place + len(word.text) if place >= 0 else at
        closing, lead, rest = _BETWEEN.fullmatch(between).groups()  # pyright: ignore[reportOptionalMemberAccess] -- it matches every text
        if waiting is None:
            closing, lead, rest = "", "", closing + lead + rest
        else:
            yield replace(waiting, text=waiting.text + closing)
        *untimed, opening = re.split(r"\s+", rest)
        for one in filter(None, untimed):
            yield Word(one, word.start_ms, word.start_ms, lead=lead)
            lead = " "
        waiting = replace(word, text=opening + word.text, lead=lead)
    if waiting is not None:
        closing, *untimed = re.split(r"\s+", text[at:])
        yield replace(waiting, text=waiting.text + closing)
        for one in filter(None, untimed):
            yield Word(one, waiting.end_ms, waiting.end_ms)


def _spread(segment: Word) -> Iterator[Word]:
    """Yield a segment's words; each gets time by its length."""
    words = segment.text.split()
    n_chars = sum(len(word) + 1 for word in words)
    at = 0
    for word in words:
        begin, at = at, at + len(word) + 1
        span_ms = segment.end_ms - segment.start_ms
        start_ms = segment.start_ms + span_ms * begin // n_chars
        yield Word(word, start_ms, segment.start_ms + span_ms * at // n_chars)
