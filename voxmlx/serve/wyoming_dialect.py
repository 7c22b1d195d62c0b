"""Wyoming's dialect: speech to text for Home Assistant and other voice assistants.

A connection, and the utterances that follow each other on it:

  client   transcribe   audio-start   audio-chunk ...                 audio-stop
  server                              transcript-start,  transcript-chunk ...,
                                      transcript and transcript-stop at the end

`transcribe` is about the utterance that begins next. `audio-start` may be left out, and
each `audio-chunk` says its own format. Events of other kinds are dropped, as the
protocol wants it. After an error the connection ends: clients wait for a transcript and
for the end, but for no error.
"""

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from voxmlx.errors import RequestError, VoxmlxError
from voxmlx.events import DraftChanged, Event, Finished, TextDelta
from voxmlx.serve.json_object import MAX_TEXT_CHARS, JsonObject
from voxmlx.serve.model_names import check_model
from voxmlx.serve.pcm import check_pcm_rate
from voxmlx.serve.protocol import (
    Dialect,
    Effect,
    Flushed,
    Lagging,
    Notice,
    PushAudio,
    Send,
    Served,
)
from voxmlx.serve.stream_options import MAX_HOTWORD_CHARS, MAX_HOTWORDS, checked_options
from voxmlx.serve.text_buffer import TextBuffer
from voxmlx.serve.wyoming_info import describe

__all__ = ["WyomingDialect"]

# Bytes of a sample -> how it is encoded; of one byte, as WAV files have it.
_ENCODINGS = {1: "pcm_u8", 2: "pcm_s16le", 3: "pcm_s24le", 4: "pcm_s32le"}

_MAX_CHANNELS = 32

_Format = tuple[str, int, int]  # encoding, rate in Hz, channels


class WyomingDialect(Dialect):
    """Events of Wyoming, flat: the fields of `data` stand beside `type`."""

    def __init__(self, served: Served, session_id: str) -> None:
        super().__init__(served, session_id)
        self._next = served.options
        self._next_context: dict[str, Any] | None = None
        self._contexts: deque[dict[str, Any] | None] = deque()  # of open utterances
        self._text = TextBuffer()
        self._is_started = False  # whether `transcript-start` was sent

    def greeting(self) -> list[Effect]:
        return []

    def error(self, error: RequestError, event_id: str | None = None) -> Send:
        return Send({"type": "error", "text": str(error), "code": error.code})

    def notice(self, notice: Notice) -> list[Effect]:
        """Tell all but lag, for which the protocol has no event."""
        return [] if isinstance(notice, Lagging) else super().notice(notice)

    def receive(self, message: JsonObject) -> list[Effect]:
        handler = self.handlers.get(message.text("type"))
        return [] if handler is None else handler(self, message)

    def on_event(self, event: Event | Flushed) -> list[Effect]:
        match event:
            case TextDelta(text):
                text = text.lstrip() if self._text.is_empty else text
                return self._chunk(text) if text else []
            case DraftChanged(text):
                text = text.lstrip() if self._text.is_empty else text
                draft = {"type": "transcript-draft", "text": text}
                return [*self._start(), Send(draft, is_draft=True)]
            case Finished():
                return [*self._transcript(), *self.after_finish()]
            case _:
                return []

    def _chunk(self, text: str) -> list[Effect]:
        self._text.add(text)
        return [*self._start(), Send({"type": "transcript-chunk", "text": text})]

    def _start(self) -> list[Effect]:
        if self._is_started:
            return []
        self._is_started = True
        return [Send({"type": "transcript-start"} | self._context())]

    def _transcript(self) -> list[Effect]:
        """The end of an utterance, and of its text."""
        start = self._start()
        text = {"type": "transcript", "text": self._text.pop()}
        effects = [*start, Send(text | self._context()), Send({"type": _STOP})]
        self._is_started = False
        if self._contexts:
            self._contexts.popleft()
        return effects

    def _context(self) -> dict[str, Any]:
        context = self._contexts[0] if self._contexts else None
        return {} if context is None else {"context": context}

    def _describe(self, _: JsonObject) -> list[Effect]:
        return [Send({"type": "info", **describe(self.served.model)})]

    def _ping(self, message: JsonObject) -> list[Effect]:
        text = message.text("text") if message.has("text") else None
        return [Send({"type": "pong", "text": text})]

    def _transcribe(self, message: JsonObject) -> list[Effect]:
        for name in ("language", "vad_sensitivity"):
            if message.has(name):
                message.text(name)  # of one model that hears all its languages
        check_model(message.text("name", "") or None, self.served.names, "name")
        context = dict(message.section("context").values) or None
        if context is not None and len(json.dumps(context)) > MAX_TEXT_CHARS:
            raise message.wrong(
                "context", f"is longer than {MAX_TEXT_CHARS} characters of JSON"
            )
        names = message.texts("transcript_names"), message.texts("transcript_terms")
        options = replace(
            self.served.options,
            draft_delay_ms=message.whole_or_none("draft_delay_ms", None),
            hotwords=_hotwords(*names),
            hotwords_are_hints=True,
        )
        checked_options(options)
        self._next, self._next_context = options, context
        return []

    def _audio_start(self, message: JsonObject) -> list[Effect]:
        if self.is_open:
            raise RequestError(
                "the sound of an utterance goes on, expected audio-stop before the "
                "next audio-start",
                code="already_started",
            )
        return self._begin(self._new_format(message))

    def _begin(self, new: _Format) -> list[Effect]:
        self.encoding, self.rate, self.n_channels = new
        self.options, self._next = self._next, self.served.options
        self._contexts.append(self._next_context)
        self._next_context = None
        return self.open()

    def _audio_chunk(self, message: JsonObject) -> list[Effect]:
        new = self._new_format(message)
        effects: list[Effect] = []
        if not self.is_open:
            effects = self._begin(new)
        elif new != (self.encoding, self.rate, self.n_channels):
            effects = self._change_format(new)
        return [*effects, *self.push_audio(message.payload)]

    def _change_format(self, new: _Format) -> list[Effect]:
        assert self._pcm is not None
        rest = self._pcm.flush()
        self.encoding, self.rate, self.n_channels = new
        self._pcm = self._new_pcm()
        return [PushAudio(rest)] if len(rest) else []

    def _audio_stop(self, _: JsonObject) -> list[Effect]:
        if self.is_open:
            return self.finish_stream()
        # Said twice, it is about an utterance whose transcript is on its way.
        return [] if self.has_stream else self._transcript()

    def _new_format(self, message: JsonObject) -> _Format:
        width = message.whole("width", _width(self.encoding))
        if width not in _ENCODINGS:
            raise message.wrong("width", f"is {width} bytes, expected 1 to 4")
        n_channels = message.whole("channels", self.n_channels)
        if not 1 <= n_channels <= _MAX_CHANNELS:
            raise message.wrong(
                "channels", f"are {n_channels}, expected 1 to {_MAX_CHANNELS}"
            )
        rate = message.whole("rate", self.rate)
        try:
            check_pcm_rate(rate)
        except VoxmlxError as error:
            raise message.wrong("rate", str(error)) from None
        return _ENCODINGS[width], rate, n_channels

    handlers: ClassVar[Mapping[str, Callable[[Any, JsonObject], list[Effect]]]] = {
        "describe": _describe,
        "ping": _ping,
        "transcribe": _transcribe,
        "audio-start": _audio_start,
        "audio-chunk": _audio_chunk,
        "audio-stop": _audio_stop,
    }


_STOP = "transcript-stop"


def _width(encoding: str) -> int:
    return next(width for width, name in _ENCODINGS.items() if name == encoding)


def _hotwords(names: tuple[str, ...], terms: tuple[str, ...]) -> tuple[str, ...]:
    """Names first, as many as may be: a large home has more of them."""
    chosen: list[str] = []
    n_chars = 0
    for text in dict.fromkeys(text.strip() for text in (*names, *terms)):
        n_chars += len(text)
        if len(chosen) == MAX_HOTWORDS or n_chars > MAX_HOTWORD_CHARS:
            break
        if text:
            chosen.append(text)
    return tuple(chosen)
