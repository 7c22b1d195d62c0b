"""Mistral's realtime transcription dialect."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from voxmlx.errors import RequestError, VoxmlxError
from voxmlx.events import (
    DraftChanged,
    Event,
    Finished,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
)
from voxmlx.serve.json_object import JsonObject
from voxmlx.serve.pcm import ENCODINGS, check_pcm_rate
from voxmlx.serve.protocol import Close, Dialect, Effect, Flushed, Send, Served
from voxmlx.serve.stream_options import possible_pause
from voxmlx.serve.text_buffer import TextBuffer

__all__ = ["MistralDialect"]


class MistralDialect(Dialect):
    """Any PCM encoding and rate; one stream, after which the connection ends.

    The stream has segments. A flush ends one, and so does the end: each is answered
    by the `transcription.done` of the segment.
    """

    def __init__(self, served: Served, session_id: str) -> None:
        super().__init__(served, session_id)
        self._text = TextBuffer()
        self._n_tokens = 0  # of the segment
        self._is_prompt_told = False
        self._has_turns = False
        self._is_in_turn = False
        self._is_over = False

    def greeting(self) -> list[Effect]:
        return [Send({"type": "session.created", "session": self._session()})]

    def error(self, error: RequestError, event_id: str | None = None) -> Send:
        detail = {"message": str(error), "code": error.status}
        return Send({"type": "error", "error": detail})

    def on_event(self, event: Event | Flushed) -> list[Effect]:
        match event:
            case TextDelta(text, time_ms):
                self._text.add(text)
                effects = self._turn_starts(time_ms) if text.strip() else []
                return [
                    *effects,
                    Send({"type": "transcription.text.delta", "text": text}),
                ]
            case DraftChanged(text):
                draft = {"type": "transcription.draft", "text": text}
                return [Send(draft, is_draft=True)]
            case UtteranceEnd(_, end_ms, _) if self._is_in_turn:
                self._is_in_turn = False
                end = {
                    "time_s": self.client_ms(end_ms) / 1000,
                    "end_reason": "threshold",
                }
                return [Send({"type": "turn.end", **end})]
            case TokenDecoded():
                self._n_tokens += 1
                return []
            case Flushed():
                return [Send(self._done())]
            case Finished():
                return [Send(self._done()), Close()]
            case _:
                return []

    def _turn_starts(self, time_ms: int) -> list[Effect]:
        if not self._has_turns or self._is_in_turn:
            return []
        self._is_in_turn = True
        return [Send({"type": "turn.start", "time_s": self.client_ms(time_ms) / 1000})]

    def _done(self) -> dict[str, Any]:
        """Return the message about the segment, and begin another."""
        # The prompt is read once, for all segments.
        n_prompt = 0
        if not self._is_prompt_told:
            n_prompt = self.served.prompt_tokens(self.options.delay_ms)
        self._is_prompt_told = True
        n_tokens, self._n_tokens = self._n_tokens, 0
        return {
            "type": "transcription.done",
            "model": self.served.model,
            "text": self._text.pop(),
            "language": None,
            "segments": [],
            "usage": {
                "prompt_tokens": n_prompt,
                "completion_tokens": n_tokens,
                "total_tokens": n_prompt + n_tokens,
                "prompt_audio_seconds": int(self.take_sent_seconds()),
            },
        }

    def _session(self) -> dict[str, Any]:
        session: dict[str, Any] = {
            "request_id": self.session_id,
            "model": self.served.model,
            "audio_format": {"encoding": self.encoding, "sample_rate": self.rate},
            "target_streaming_delay_ms": self.options.delay_ms,
            "context_bias": list(self.options.hotwords),
        }
        if self.options.draft_delay_ms is not None:
            session["draft_delay_ms"] = self.options.draft_delay_ms
        return session

    def _update(self, message: JsonObject) -> list[Effect]:
        session = message.section("session")
        if session.flag("diarize", False):
            raise session.wrong("diarize", "speakers are not told apart", "unsupported")
        sound = session.section("audio_format")
        encoding = sound.text("encoding", self.encoding)
        if encoding not in ENCODINGS:
            raise sound.wrong("encoding", f"expected one of {', '.join(ENCODINGS)}")
        rate = sound.whole("sample_rate", self.rate)
        try:
            check_pcm_rate(rate)
        except VoxmlxError as error:
            raise sound.wrong("sample_rate", str(error)) from None
        if (encoding, rate) != (self.encoding, self.rate) and self.is_open:
            raise session.wrong(
                "audio_format", "cannot change once there is sound", "already_started"
            )
        turns = session.section("turn_detection")
        self.choose(
            delay_ms=session.whole("target_streaming_delay_ms", self.options.delay_ms),
            draft_delay_ms=session.whole_or_none(
                "draft_delay_ms", self.options.draft_delay_ms
            ),
            pause_ms=possible_pause(
                turns.whole("min_silence_ms", self.options.pause_ms)
            ),
            hotwords=session.texts("context_bias", self.options.hotwords),
        )
        self.encoding, self.rate = encoding, rate
        self._has_turns = self._has_turns or session.has("turn_detection")
        return [Send({"type": "session.updated", "session": self._session()})]

    def _append(self, message: JsonObject) -> list[Effect]:
        self._refuse_after_end()
        return self.append_audio(message)

    def _flush(self, _: JsonObject) -> list[Effect]:
        self._refuse_after_end()
        # Without new sound there is nothing to bring out, and a client that waits.
        return self.flush() if self.has_unflushed else [Send(self._done())]

    def _end(self, _: JsonObject) -> list[Effect]:
        self._refuse_after_end()
        self._is_over = True
        return self.finish_stream()

    def _refuse_after_end(self) -> None:
        if self._is_over:
            raise RequestError(
                "the sound has ended; connect again for more", code="already_ended"
            )

    handlers: ClassVar[Mapping[str, Callable[[Any, JsonObject], list[Effect]]]] = {
        "session.update": _update,
        "input_audio.append": _append,
        "input_audio.flush": _flush,
        "input_audio.end": _end,
    }
