"""One connection's protocol: which dialect it is, and what its errors become."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from voxmlx.errors import RequestError
from voxmlx.serve.json_object import JsonObject, read_message
from voxmlx.serve.mistral_dialect import MistralDialect
from voxmlx.serve.openai_dialect import OpenAiDialect
from voxmlx.serve.protocol import (
    POLICY_VIOLATION,
    Close,
    Dialect,
    Effect,
    Notice,
    Send,
    Served,
)
from voxmlx.serve.vllm_dialect import VllmDialect
from voxmlx.serve.wyoming_dialect import WyomingDialect

__all__ = ["Conversation", "Hints", "WyomingConversation"]


@dataclass(frozen=True, slots=True)
class Hints:
    """Facts about a client that are known before its first message."""

    path: str = "/v1/realtime"
    intent: str | None = None
    has_openai_headers: bool = False
    is_beta: bool = False


def _openai(served: Served, session_id: str, hints: Hints) -> Dialect:
    return OpenAiDialect(served, session_id, is_beta=hints.is_beta)


def _says_more_than_vllm(message: JsonObject) -> bool:
    return "session" in message


# First message that tells -> whether it is OpenAI's; any other is vLLM's.
_OPENAI_SIGNS: Mapping[str, Callable[[JsonObject], bool]] = {
    "transcription_session.update": lambda _: True,
    "session.update": _says_more_than_vllm,
    "input_audio_buffer.clear": lambda _: True,
}


class _Conversation:
    """What is the same whatever is spoken."""

    dialect: Dialect

    def notice(self, notice: Notice) -> list[Effect]:
        """Tell the client what its stream says."""
        return self.dialect.notice(notice)

    def quiet(self) -> list[Effect]:
        """Bring out the last words of a client that has sent nothing for a while."""
        return self.dialect.quiet()

    def end(self) -> list[Effect]:
        """The server goes away."""
        return self.dialect.end()

    def refuse(self, error: RequestError) -> list[Effect]:
        """Say that there is no place, or why else this must end."""
        return [self.dialect.error(error)]


class WyomingConversation(_Conversation):
    """Events of a Wyoming client and notices of its streams in, effects out.

    It never raises. A client holds a place for as long as it has an utterance.
    """

    def __init__(self, served: Served) -> None:
        self.dialect = WyomingDialect(served, served.new_id("sess"))

    @property
    def needs_slot(self) -> bool:
        return self.dialect.has_stream

    def begin(self) -> list[Effect]:
        """Return nothing: a Wyoming client speaks first."""
        return self.dialect.greeting()

    def receive(self, message: JsonObject) -> list[Effect]:
        """Answer an event, whatever it is; a mistake ends the connection."""
        try:
            return self.dialect.receive(message)
        except RequestError as error:
            return [self.dialect.error(error), Close(POLICY_VIOLATION, error.code)]


class Conversation(_Conversation):
    """Texts of a client and notices of its stream in, effects out. Never raises.

    A client holds its place from the beginning to the end.
    """

    needs_slot = True

    def __init__(self, served: Served, hints: Hints) -> None:
        self._served = served
        self._hints = hints
        self._session_id = served.new_id("sess")
        self._is_certain = True
        if hints.path.endswith("/transcriptions/realtime"):
            self.dialect = MistralDialect(served, self._session_id)
        elif hints.is_beta or hints.has_openai_headers or hints.intent is not None:
            self.dialect = _openai(served, self._session_id, hints)
        else:
            self.dialect = VllmDialect(served, self._session_id)
            self._is_certain = False

    def begin(self) -> list[Effect]:
        """Return the server's first messages."""
        if self._is_certain:
            return self.dialect.greeting()
        # For both dialects at once: each finds in it what it looks for.
        theirs = _openai(self._served, self._session_id, self._hints).greeting()
        ours = self.dialect.greeting()
        message = {
            name: value
            for effect in (*theirs, *ours)
            if isinstance(effect, Send)
            for name, value in effect.message.items()
        }
        return [Send(message)]

    def receive(self, text: str | bytes) -> list[Effect]:
        """Answer a message, whatever it is."""
        event_id = None
        try:
            message = read_message(text)
            if message.has("event_id"):
                event_id = message.text("event_id")
            self._recognize(message)
            return self.dialect.receive(message)
        except RequestError as error:
            return [self.dialect.error(error, event_id)]

    def _recognize(self, message: JsonObject) -> None:
        if self._is_certain:
            return
        kind = message.text("type")
        if kind not in self.dialect.handlers and kind not in _OPENAI_SIGNS:
            return  # a mistake, and no sign of anything
        self._is_certain = True
        if _OPENAI_SIGNS.get(kind, lambda _: False)(message):
            self.dialect = _openai(self._served, self._session_id, self._hints)
