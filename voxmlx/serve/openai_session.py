"""Settings of a session in OpenAI's dialect: read from its messages, and shown in them."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from voxmlx.errors import VoxmlxError
from voxmlx.serve.json_object import JsonObject
from voxmlx.serve.model_names import check_model
from voxmlx.serve.pcm import check_pcm_rate
from voxmlx.serve.stream_options import StreamOptions, checked_options, possible_pause

__all__ = ["OpenAiSession"]

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


@dataclass(frozen=True, slots=True)
class OpenAiSession:
    """Settings that a client has asked for; `options` are of its next stream."""

    options: StreamOptions
    format: str = "audio/pcm"
    rate: int = _DEFAULT_RATE
    has_vad: bool = True
    padding_ms: int = 300
    language: str | None = None
    include: tuple[str, ...] = ()

    @staticmethod
    def default(options: StreamOptions) -> "OpenAiSession":
        """Return the session of a client that has asked for nothing."""
        return OpenAiSession(replace(options, pause_ms=_DEFAULT_SILENCE_MS))

    @property
    def encoding(self) -> str:
        return _FORMATS[self.format][0]

    def updated(self, session: JsonObject, models: Collection[str]) -> "OpenAiSession":
        """Return the session after an update, by present or beta names.

        What an update leaves out stays as it was. `models` are names that may be asked
        for. Raises RequestError.
        """
        if session.has("type") and session.text("type") != "transcription":
            raise session.wrong(
                "type", "this server transcribes only, expected transcription"
            )
        new = session.section("audio").section("input")
        name, rate = self._new_format(session, new)
        padding_ms, has_vad, pause_ms = self._new_turns(session, new)
        wanted = new.section("transcription")
        if session.has("input_audio_transcription"):
            wanted = session.section("input_audio_transcription")
        check_model(wanted.text("model", "") or None, models, wanted.path("model"))
        include = self._new_include(session)
        hotwords = wanted.texts("keywords", self.options.hotwords)
        options = replace(
            self.options,
            delay_ms=self._new_delay(wanted),
            draft_delay_ms=wanted.whole_or_none(
                "draft_delay_ms", self.options.draft_delay_ms
            ),
            confidence=bool(include),
            pause_ms=pause_ms,
            hotwords=hotwords,
            hotwords_are_hints=bool(hotwords),
        )
        checked_options(options)
        language = self.language
        if wanted.has("language"):
            language = wanted.text("language")
        return OpenAiSession(
            options, name, rate, has_vad, padding_ms, language, include
        )

    def _new_format(self, session: JsonObject, new: JsonObject) -> tuple[str, int]:
        if session.has("input_audio_format"):
            where, field = session, "input_audio_format"
        else:
            where, field = new.section("format"), "type"
        name = where.text(field, self.format)
        if name not in _FORMATS:
            raise where.wrong(field, f"expected one of {', '.join(_FORMATS)}")
        before = self.rate if name == self.format else _DEFAULT_RATE
        rate = _FORMATS[name][1] or new.section("format").whole("rate", before)
        try:
            check_pcm_rate(rate)
        except VoxmlxError as error:
            raise new.wrong("format", str(error)) from None
        return name, rate

    def _new_turns(self, session: JsonObject, new: JsonObject) -> tuple[int, bool, int]:
        where = new if "turn_detection" in new else session
        if "turn_detection" not in where:
            return self.padding_ms, self.has_vad, self.options.pause_ms
        if not where.has("turn_detection"):
            return self.padding_ms, False, self.options.pause_ms
        turns = where.section("turn_detection")
        return (
            max(0, turns.whole("prefix_padding_ms", self.padding_ms)),
            True,
            possible_pause(turns.whole("silence_duration_ms", self.options.pause_ms)),
        )

    def _new_include(self, session: JsonObject) -> tuple[str, ...]:
        if "include" not in session:
            return self.include
        include = session.texts("include")
        if not set(include) <= set(_LOGPROBS):
            raise session.wrong("include", f"expected {_LOGPROBS[0]}")
        return include[:1]

    def _new_delay(self, wanted: JsonObject) -> int:
        if not wanted.has("delay"):
            return self.options.delay_ms
        name = wanted.text("delay")
        if name not in _DELAYS_MS:
            raise wanted.wrong("delay", f"expected one of {', '.join(_DELAYS_MS)}")
        return _DELAYS_MS[name]

    def shown(self, session_id: str, model: str, *, is_beta: bool) -> dict[str, Any]:
        """Return the session as messages show it, by present or beta names."""
        names = {ms: name for name, ms in _DELAYS_MS.items()}
        transcription: dict[str, Any] = {
            "model": model,
            "language": self.language,
            "delay": names.get(self.options.delay_ms),
        }
        if self.options.draft_delay_ms is not None:
            transcription["draft_delay_ms"] = self.options.draft_delay_ms
        turns = {
            "type": "server_vad",
            "prefix_padding_ms": self.padding_ms,
            "silence_duration_ms": self.options.pause_ms,
        }
        turn_detection = turns if self.has_vad else None
        session = {
            "id": session_id,
            "object": "realtime.transcription_session",
            "expires_at": 0,
            "include": list(self.include),
        }
        if is_beta:
            return session | {
                "input_audio_format": self.format,
                "input_audio_transcription": transcription,
                "turn_detection": turn_detection,
            }
        sound: dict[str, Any] = {"type": self.format}
        if self.format == "audio/pcm":
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
