"""OpenAI's realtime transcription dialect, by its present and its beta names."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from voxmlx.errors import RequestError, VoxmlxError
from voxmlx.events import Event, Finished, TextDelta, TokenDecoded, UtteranceEnd
from voxmlx.serve.json_object import JsonObject
from voxmlx.serve.pcm import check_pcm_rate
from voxmlx.serve.protocol import (
    Dialect,
    Effect,
    Flushed,
    Lagging,
    Send,
    Served,
    possible_pause,
)
from voxmlx.serve.text_buffer import TextBuffer
from voxmlx.serve.token_logprobs import TokenLogprobs

__all__ = ["OpenAiDialect"]

# Present and beta names of a format -> encoding, and the rate where it has but one.
_FORMATS: dict[str, tuple[str, int | None]] = {
    "audio/pcm": ("pcm_s16le", None),
    "audio/pcmu": ("pcm_mulaw", 8000),
    "audio/pcma": ("pcm_alaw", 8000),
    "pcm16": ("pcm_s16le", None),
    "g711_ulaw": ("pcm_mulaw", 8000),
    "g711_alaw": ("pcm_alaw", 8000),
}
_DEFAULT_RATE = 24_000

# Their words for how long to wait, as delays of the model's.
_DELAYS_MS = {"minimal": 160, "low": 240, "medium": 480, "high": 960, "xhigh": 2400}

# What a client may ask to hear of beyond the text; the second name is of uploads.
_LOGPROBS = ("item.input_audio_transcription.logprobs", "logprobs")

_DEFAULT_SILENCE_MS = 500
_DEFAULT_PADDING_MS = 300


@dataclass(slots=True)
class _Item:
    """A turn: what was said until somebody, or a pause, committed it."""

    id: str
    text: TextBuffer = field(default_factory=TextBuffer)
    # Of some ten minutes of speech: the text goes on, the first of them are dropped.
    logprobs: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=4096))
    heard_ms: int = 0  # the last word of it, on the client's clock
    is_dropped: bool = False


class OpenAiDialect(Dialect):
    """PCM at 24 kHz, or G.711; turns end at pauses, or when the client commits.

    One stream for all turns of a connection: the model keeps what it heard before.
    Deltas come while a turn is spoken, before it is committed.
    """

    rate = _DEFAULT_RATE

    def __init__(
        self, served: Served, session_id: str, *, is_beta: bool = False
    ) -> None:
        super().__init__(served, session_id)
        self.choose(pause_ms=_DEFAULT_SILENCE_MS)
        self._is_beta = is_beta
        self._format = "audio/pcm"
        self._has_vad = True
        self._padding_ms = _DEFAULT_PADDING_MS
        self._language: str | None = None
        self._item: _Item | None = None
        self._committed: deque[_Item] = deque()
        self._previous_id: str | None = None
        self._include: tuple[str, ...] = ()
        self._logprobs = TokenLogprobs()

    def greeting(self) -> list[Effect]:
        return [self._session_message("created")]

    def error(self, error: RequestError, event_id: str | None = None) -> Send:
        is_ours = error.status >= 500
        detail = {
            "type": "server_error" if is_ours else "invalid_request_error",
            "code": error.code,
            "message": str(error),
            "param": error.param,
            "event_id": event_id,
        }
        return self._message("error", error=detail)

    def lag(self, lagging: Lagging) -> dict[str, Any]:
        return {"event_id": self.served.new_id("event"), **super().lag(lagging)}

    def on_event(self, event: Event | Flushed) -> list[Effect]:
        match event:
            case TokenDecoded():
                self._logprobs.push(event)
                return []
            case TextDelta():
                return self._delta(event)
            case UtteranceEnd(_, end_ms, _):
                return self._turn_ends(self.client_ms(end_ms))
            case Flushed():
                return self._complete(self._committed.popleft())
            case Finished():
                effects: list[Effect] = []
                if self._item is not None:
                    effects += self._commit_item(self._taken_item())
                return [*effects, *self.after_finish()]
            case _:
                return []

    def after_quiet(self) -> list[Effect]:
        """End the turn: a client that sends no silence has no pause in its sound."""
        return [] if self._item is None else self._turn_ends(self._item.heard_ms)

    def _delta(self, event: TextDelta) -> list[Effect]:
        text, time_ms = event.text, self.client_ms(event.time_ms)
        logprobs = self._logprobs.push(event) if self._include else []
        effects: list[Effect] = []
        if self._committed:
            item = self._committed[0]  # a commit is on its way through the decoder
        elif self._item is not None:
            item = self._item
        elif not text.strip():
            return []
        else:
            item = self._item = _Item(self.served.new_id("item"))
            if self._has_vad:
                effects.append(
                    self._message(
                        "input_audio_buffer.speech_started",
                        audio_start_ms=max(0, time_ms - self._padding_ms),
                        item_id=item.id,
                    )
                )
        if item.is_dropped:
            return effects
        item.text.add(text)
        item.heard_ms = time_ms
        delta: dict[str, Any] = {"item_id": item.id, "content_index": 0, "delta": text}
        if self._include:
            item.logprobs += logprobs
            delta["logprobs"] = logprobs
        name = "conversation.item.input_audio_transcription.delta"
        return [*effects, self._message(name, **delta)]

    def _turn_ends(self, end_ms: int) -> list[Effect]:
        """End the turn at a time on the client's clock."""
        if not self._has_vad or self._item is None or self._committed:
            return []
        item = self._taken_item()
        stopped = self._message(
            "input_audio_buffer.speech_stopped",
            audio_end_ms=end_ms,
            item_id=item.id,
        )
        return [stopped, *self._commit_item(item)]

    def _commit_item(self, item: _Item) -> list[Effect]:
        return [*self._announce(item), *self._complete(item)]

    def _announce(self, item: _Item) -> list[Effect]:
        """Say that the sound of an item is complete."""
        previous, self._previous_id = self._previous_id, item.id
        content = {"type": "input_audio", "transcript": None}
        shown = {
            "id": item.id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [content],
        }
        place = {"previous_item_id": previous}
        effects: list[Effect] = [
            self._message("input_audio_buffer.committed", **place, item_id=item.id)
        ]
        names = ("created",) if self._is_beta else ("added", "done")
        for name in names:
            effects.append(
                self._message(f"conversation.item.{name}", **place, item=shown)
            )
        return effects

    def _complete(self, item: _Item) -> list[Effect]:
        """Say what an item's text is."""
        seconds = self.take_sent_seconds()
        if item.is_dropped:
            return []
        logprobs = {"logprobs": list(item.logprobs)} if self._include else {}
        return [
            self._message(
                "conversation.item.input_audio_transcription.completed",
                item_id=item.id,
                content_index=0,
                transcript=item.text.pop().strip(),
                **logprobs,
                usage={"type": "duration", "seconds": round(seconds, 3)},
            )
        ]

    def _taken_item(self) -> _Item:
        item, self._item = self._item, None
        return item or _Item(self.served.new_id("item"))

    def _commit(self, _: JsonObject) -> list[Effect]:
        if not self.is_open or (self.has_sent_nothing and self._item is None):
            raise RequestError(
                "nothing was appended since the last commit",
                code="input_audio_buffer_commit_empty",
            )
        item = self._taken_item()
        if not self.has_unflushed:  # all of it is out
            return self._commit_item(item)
        self._committed.append(item)
        return [*self._announce(item), *self.flush()]

    def _clear(self, _: JsonObject) -> list[Effect]:
        cleared = self._message("input_audio_buffer.cleared")
        if not self.is_open or not self.has_unflushed:
            self._item = None
            self.take_sent_seconds()
            return [cleared]
        # What the decoder heard it cannot forget: its words are not passed on.
        item = self._taken_item()
        item.is_dropped = True
        self._committed.append(item)
        return [cleared, *self.flush()]

    def _update(self, message: JsonObject) -> list[Effect]:
        session = message.section("session")
        if session.has("type") and session.text("type") != "transcription":
            raise session.wrong(
                "type", "this server transcribes only, expected transcription"
            )
        new = session.section("audio").section("input")
        encoding, rate, name = self._new_format(session, new)
        padding_ms, has_vad, pause_ms = self._new_turns(session, new)
        wanted = self._new_transcription(session, new)
        include = self._new_include(session)
        self.choose(
            delay_ms=self._new_delay(wanted),
            confidence=self.options.confidence if self.is_open else bool(include),
            pause_ms=pause_ms,
            hotwords=wanted.texts("keywords") or self.options.hotwords,
        )
        if wanted.has("language"):
            self._language = wanted.text("language")
        self.encoding, self.rate, self._format = encoding, rate, name
        self._padding_ms, self._has_vad = padding_ms, has_vad
        self._include = include
        return [self._session_message("updated")]

    def _update_beta(self, message: JsonObject) -> list[Effect]:
        self._is_beta = True
        return self._update(message)

    def _new_format(self, session: JsonObject, new: JsonObject) -> tuple[str, int, str]:
        if session.has("input_audio_format"):
            where, field = session, "input_audio_format"
        else:
            where, field = new.section("format"), "type"
        name = where.text(field, self._format)
        if name not in _FORMATS:
            raise where.wrong(field, f"expected one of {', '.join(_FORMATS)}")
        encoding, fixed = _FORMATS[name]
        keeps = name == self._format
        rate = fixed or new.section("format").whole(
            "rate", self.rate if keeps else _DEFAULT_RATE
        )
        try:
            check_pcm_rate(rate)
        except VoxmlxError as error:
            raise new.wrong("format", str(error)) from None
        if (encoding, rate) != (self.encoding, self.rate) and self.is_open:
            raise new.wrong(
                "format", "cannot change once there is sound", "session_already_started"
            )
        return encoding, rate, name

    def _new_turns(self, session: JsonObject, new: JsonObject) -> tuple[int, bool, int]:
        where = new if "turn_detection" in new else session
        if "turn_detection" not in where:
            return self._padding_ms, self._has_vad, self.options.pause_ms
        if not where.has("turn_detection"):
            return self._padding_ms, False, self.options.pause_ms
        turns = where.section("turn_detection")
        return (
            max(0, turns.whole("prefix_padding_ms", self._padding_ms)),
            True,
            possible_pause(turns.whole("silence_duration_ms", self.options.pause_ms)),
        )

    def _new_include(self, session: JsonObject) -> tuple[str, ...]:
        if "include" not in session:
            return self._include
        include = session.texts("include")
        if not set(include) <= set(_LOGPROBS):
            raise session.wrong("include", f"expected {_LOGPROBS[0]}")
        return include[:1]

    def _new_transcription(self, session: JsonObject, new: JsonObject) -> JsonObject:
        if session.has("input_audio_transcription"):
            return session.section("input_audio_transcription")
        return new.section("transcription")

    def _new_delay(self, wanted: JsonObject) -> int:
        if not wanted.has("delay"):
            return self.options.delay_ms
        name = wanted.text("delay")
        if name not in _DELAYS_MS:
            raise wanted.wrong("delay", f"expected one of {', '.join(_DELAYS_MS)}")
        return _DELAYS_MS[name]

    def _message(self, kind: str, **fields: Any) -> Send:
        return Send({"type": kind, "event_id": self.served.new_id("event"), **fields})

    def _session_message(self, what: str) -> Send:
        kind = "transcription_session" if self._is_beta else "session"
        return self._message(f"{kind}.{what}", session=self._session())

    def _session(self) -> dict[str, Any]:
        names = {ms: name for name, ms in _DELAYS_MS.items()}
        transcription = {
            "model": self.served.model,
            "language": self._language,
            "delay": names.get(self.options.delay_ms),
        }
        turns = {
            "type": "server_vad",
            "prefix_padding_ms": self._padding_ms,
            "silence_duration_ms": self.options.pause_ms,
        }
        turn_detection = turns if self._has_vad else None
        session = {
            "id": self.session_id,
            "object": "realtime.transcription_session",
            "expires_at": 0,
            "include": list(self._include),
        }
        if self._is_beta:
            return session | {
                "input_audio_format": self._format,
                "input_audio_transcription": transcription,
                "turn_detection": turn_detection,
            }
        sound: dict[str, Any] = {"type": self._format}
        if self._format == "audio/pcm":
            sound["rate"] = self.rate
        return session | {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": sound,
                    "transcription": transcription,
                    "noise_reduction": None,
                    "turn_detection": turn_detection,
                }
            },
        }

    handlers: ClassVar[Mapping[str, Callable[[Any, JsonObject], list[Effect]]]] = {
        "session.update": _update,
        "transcription_session.update": _update_beta,
        "input_audio_buffer.append": Dialect.append_audio,
        "input_audio_buffer.commit": _commit,
        "input_audio_buffer.clear": _clear,
    }
