"""Messages of a server in vLLM's dialect -> the events that a session has."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from voxmlx.config import (
    AUDIO_TOKEN_MS,
    SAMPLE_RATE,
    STREAMING_PAD_ID,
    STREAMING_WORD_ID,
)
from voxmlx.errors import ServerError
from voxmlx.events import (
    DraftChanged,
    Event,
    Finished,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    Word,
)
from voxmlx.text.draft_text import rest_of_draft
from voxmlx.text.event_assembler import EventAssembler

__all__ = ["RemoteEvents"]

# Any id that is no marker: which one is told by no server.
_SOME_TEXT_ID = 1000


class RemoteEvents:
    """Events of one stream that a server decodes, out of its messages and the sound.

    A server of ours says when a word was spoken, because it is asked to. vLLM sends a
    delta for every audio token, an empty one for blanks and markers, so that its ids
    can be guessed: then words and pauses are found as a session finds them.
    """

    def __init__(self, replacements: Mapping[str, str], pause_ms: int) -> None:
        self._assembler = EventAssembler(replacements, pause_ms)
        self._n_samples = 0
        self._n_deltas = 0
        # An empty delta that is a marker if text comes next, and a blank if not.
        self._blank: int | None = None
        self._has_blanks = False
        # Text of deltas with times that has not come as words yet, and the last time.
        self._open_text = ""
        self._time_ms = 0
        self.has_times = False
        self._draft = DraftChanged("", 0)

    @property
    def duration_ms(self) -> int:
        """Sound heard so far."""
        return self._n_samples * 1000 // SAMPLE_RATE

    def push(self, samples: np.ndarray) -> None:
        """The sound, as it is sent."""
        self._n_samples += len(samples)
        self._assembler.push_sound(samples)

    def receive(self, message: Mapping[str, Any]) -> list[Event]:
        """Return the events of a message. Raises ServerError for a malformed message."""
        try:
            return self._with_draft(self._read(message))
        except (KeyError, TypeError, ValueError) as error:
            kind = str(message.get("type"))[:60]
            raise ServerError(
                f"its message {kind!r} is not of vLLM's dialect: {error!r}"
            ) from None

    def _with_draft(self, events: list[Event]) -> list[Event]:
        """Events, and behind text the draft without what is confirmed by it.

        A session says both at once. A server's next draft is a message of its own, and
        may be late.
        """
        told: list[Event] = []
        for event in events:
            told.append(event)
            if isinstance(event, DraftChanged):
                self._draft = event
            elif isinstance(event, TextDelta) and self._draft.text:
                rest = rest_of_draft(self._draft.text, event.text)
                if rest != self._draft.text:
                    self._draft = replace(self._draft, text=rest)
                    told.append(self._draft)
        return told

    def flush(self) -> list[Event]:
        """The words of all text so far: the server tells nothing more."""
        duration_ms = self.duration_ms
        if self.has_times:
            words = [
                Word(text, self._time_ms, self._time_ms)
                for text in self._open_text.split()
            ]
            self._open_text = ""
            return self._assembler.finalize(words, duration_ms, is_last=True)
        return self._assembler.flush("", duration_ms)

    def _read(self, message: Mapping[str, Any]) -> list[Event]:
        match message.get("type"):
            case "transcription.delta" if "time_ms" in message:
                self.has_times = True
                self._time_ms = int(message["time_ms"])
                self._open_text += str(message["delta"])
                return [TextDelta(str(message["delta"]), self._time_ms)]
            case "transcription.delta":
                return self._infer_token(str(message["delta"]))
            case "transcription.draft":
                return [DraftChanged(str(message["text"]), int(message["time_ms"]))]
            case "transcription.word":
                start_ms, end_ms = int(message["start_ms"]), int(message["end_ms"])
                lead = str(message["lead"])
                confidence = message.get("confidence")
                word = Word(
                    str(message["text"]),
                    start_ms,
                    end_ms,
                    None if confidence is None else float(confidence),
                    lead,
                )
                self._open_text = self._open_text[len(lead + word.text) :]
                return self._assembler.finalize([word], int(message["time_ms"]))
            case "transcription.utterance_end":
                start_ms, end_ms = int(message["start_ms"]), int(message["end_ms"])
                end = UtteranceEnd(start_ms, end_ms, int(message["time_ms"]))
                return self._assembler.finalize([], end.time_ms, end)
            case "transcription.done":
                usage: dict[str, Any] = dict(message.get("usage") or {})
                n_tokens = int(usage.get("completion_tokens") or self._n_deltas)
                return [*self.flush(), Finished(self.duration_ms, n_tokens)]
            case _:
                return []

    def _infer_token(self, text: str) -> list[Event]:
        """One more delta without a time: what it means with those before it."""
        index = self._n_deltas
        self._n_deltas += 1
        events: list[Event] = []
        self._has_blanks = self._has_blanks or not text
        # Where a server sends no empty deltas, a space tells that a word has begun.
        is_word = text[:1].isspace() and not self._has_blanks
        if text and (self._blank is not None or is_word):
            marker = index if self._blank is None else self._blank
            events += self._emit(STREAMING_WORD_ID, marker, "")
        elif self._blank is not None:
            events += self._emit(STREAMING_PAD_ID, self._blank, "")
        self._blank = None if text else index
        if text:
            events += self._emit(_SOME_TEXT_ID, index, text)
        return events

    def _emit(self, token_id: int, index: int, text: str) -> list[Event]:
        token = TokenDecoded(token_id, index, (index + 1) * AUDIO_TOKEN_MS)
        return self._assembler.push(token, text)
