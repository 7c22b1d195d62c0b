"""Events -> JSON: one object per stream, or one per event as it comes."""

import json
from array import array
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from voxmlx.events import (
    Alternative,
    DraftChanged,
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
from voxmlx.text.transcript import SegmentRules, TranscriptBuilder

__all__ = ["JsonLinesWriter", "JsonWriter"]

# Two seconds: so much is decoded again after a crash.
_IDS_PER_LINE = 25


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
        return json.dumps(self.content(), ensure_ascii=False) + "\n"

    def content(self) -> dict[str, Any]:
        """Return the object so far."""
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
        return content


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
        stamp: Mapping[str, Any] | None = None,
    ) -> None:
        """`stamp` is put into every line, behind its type."""
        self._head = dict(head or {})
        self._stamp = dict(stamp or {})
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
            case DraftChanged():
                fields = {"type": "draft"} | asdict(event)
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
        return text + self._line(fields)

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
        return self._line(fields)

    def _line(self, fields: dict[str, Any]) -> str:
        stamped = {"type": fields["type"]} | self._stamp | fields
        return json.dumps(stamped, ensure_ascii=False) + "\n"

    def _opened(self) -> str:
        head, self._head = self._head, {}
        if not head:
            return ""
        return json.dumps({"type": "stream"} | head, ensure_ascii=False) + "\n"


def _word(word: Word) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "text": word.text,
        "start_ms": word.start_ms,
        "end_ms": word.end_ms,
    }
    if word.confidence is not None:
        fields["confidence"] = round(word.confidence, 4)
    if word.is_echo:
        fields["is_echo"] = True
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
