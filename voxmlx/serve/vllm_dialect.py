"""vLLM's realtime dialect, and what our own page and client add to it."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from voxmlx.errors import RequestError, VoxmlxError
from voxmlx.events import (
    DraftChanged,
    Event,
    Finished,
    TextDelta,
    UtteranceEnd,
    WordFinal,
)
from voxmlx.serve.json_object import JsonObject
from voxmlx.serve.model_names import check_model
from voxmlx.serve.pcm import check_pcm_rate
from voxmlx.serve.protocol import (
    Dialect,
    Effect,
    Flushed,
    Send,
    Served,
)
from voxmlx.serve.text_buffer import TextBuffer

__all__ = ["VllmDialect"]

# What a client may ask to hear of beyond vLLM's own messages.
_INCLUDES = ("words", "confidence", "lag")


class VllmDialect(Dialect):
    """PCM16 at 16 kHz; commit starts a stream, commit with `final` ends it.

    Beyond vLLM's: `session.update` is optional, and may also name `delay_ms`,
    `draft_delay_ms`, `pause_ms`, `hotwords`, `rate` (of the sound, in Hz) and `include`
    (`words`, `confidence` in words, `lag`), which it is answered for.
    """

    def __init__(self, served: Served, session_id: str) -> None:
        super().__init__(served, session_id)
        self._text = TextBuffer()
        self._include: frozenset[str] = frozenset()

    @property
    def wants_all_lag(self) -> bool:
        return "lag" in self._include

    def greeting(self) -> list[Effect]:
        created = {"id": self.session_id, "created": self.served.now_s()}
        return [Send({"type": "session.created", **created})]

    def error(self, error: RequestError, event_id: str | None = None) -> Send:
        return Send({"type": "error", "error": str(error), "code": error.code})

    def end(self) -> list[Effect]:
        # What comes now is about sound that is cut. A client of vLLM's knows no such word.
        told = [Send({"type": "session.ending"})] if self._include else []
        return [*told, *super().end()]

    def on_event(self, event: Event | Flushed) -> list[Effect]:
        match event:
            case TextDelta(text, time_ms):
                self._text.add(text)
                delta: dict[str, Any] = {"type": "transcription.delta", "delta": text}
                if self._include:
                    delta["time_ms"] = self.client_ms(time_ms)
                return [Send(delta)]
            case DraftChanged(text, time_ms):
                told = {"text": text, "time_ms": self.client_ms(time_ms)}
                return [Send({"type": "transcription.draft", **told}, is_draft=True)]
            case WordFinal(word, time_ms) if "words" in self._include:
                said: dict[str, Any] = {
                    "type": "transcription.word",
                    "text": word.text,
                    "lead": word.lead,
                    "start_ms": self.client_ms(word.start_ms),
                    "end_ms": self.client_ms(word.end_ms),
                    "time_ms": self.client_ms(time_ms),
                }
                if "confidence" in self._include:
                    said["confidence"] = word.confidence
                return [Send(said)]
            case UtteranceEnd() if "words" in self._include:
                return [
                    Send(
                        {
                            "type": "transcription.utterance_end",
                            "start_ms": self.client_ms(event.start_ms),
                            "end_ms": self.client_ms(event.end_ms),
                            "time_ms": self.client_ms(event.time_ms),
                        }
                    )
                ]
            case Finished(_, n_tokens):
                n_prompt = self.served.prompt_tokens(self.options.delay_ms)
                usage = {
                    "prompt_tokens": n_prompt,
                    "completion_tokens": n_tokens,
                    "total_tokens": n_prompt + n_tokens,
                }
                done = {"type": "transcription.done", "text": self._text.pop()}
                return [Send({**done, "usage": usage}), *self.after_finish()]
            case _:
                return []

    def _update(self, message: JsonObject) -> list[Effect]:
        if "session" in message:
            raise message.wrong(
                "session",
                "this connection speaks vLLM's dialect since its first message; "
                "for OpenAI's, send session.update first",
            )
        check_model(message.text("model", "") or None, self.served.names)
        include = message.texts("include")
        for name in include:
            if name not in _INCLUDES:
                raise message.wrong("include", f"expected {', '.join(_INCLUDES)}")
        if "include" not in message:
            include = tuple(self._include)
        rate = self._new_rate(message)
        self.choose(
            confidence="confidence" in include,
            delay_ms=message.whole("delay_ms", self.options.delay_ms),
            draft_delay_ms=message.whole_or_none(
                "draft_delay_ms", self.options.draft_delay_ms
            ),
            pause_ms=message.whole("pause_ms", self.options.pause_ms),
            hotwords=message.texts("hotwords", self.options.hotwords),
        )
        self.rate = rate
        self._include = frozenset(include)
        # vLLM answers nothing, and a client of its may not expect an answer.
        ours = ("delay_ms", "draft_delay_ms", "pause_ms", "hotwords", "include", "rate")
        if not any(name in message for name in ours):
            return []
        session: dict[str, Any] = {
            "id": self.session_id,
            "model": self.served.model,
            "delay_ms": self.options.delay_ms,
            "pause_ms": self.options.pause_ms,
            "hotwords": list(self.options.hotwords),
            "include": sorted(self._include),
            "rate": self.rate,
        }
        if "draft_delay_ms" in message or self.options.draft_delay_ms is not None:
            session["draft_delay_ms"] = self.options.draft_delay_ms
        return [Send({"type": "session.updated", "session": session})]

    def _new_rate(self, message: JsonObject) -> int:
        rate = message.whole("rate", self.rate)
        try:
            check_pcm_rate(rate)
        except VoxmlxError as error:
            raise message.wrong("rate", str(error)) from None
        if rate != self.rate and self.is_open:
            raise message.wrong(
                "rate", "cannot change once there is sound", "session_already_started"
            )
        return rate

    def _commit(self, message: JsonObject) -> list[Effect]:
        return self.finish_stream() if message.flag("final", False) else self.open()

    handlers: ClassVar[Mapping[str, Callable[[Any, JsonObject], list[Effect]]]] = {
        "session.update": _update,
        "input_audio_buffer.append": Dialect.append_audio,
        "input_audio_buffer.commit": _commit,
    }
