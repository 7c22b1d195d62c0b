"""OpenAI's realtime transcription dialect, by its present and its beta names."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from voxmlx.config import SAMPLE_RATE
from voxmlx.errors import RequestError
from voxmlx.events import (
    DraftChanged,
    Event,
    Finished,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
)
from voxmlx.live.restart_sound import RestartSound
from voxmlx.serve.json_object import JsonObject
from voxmlx.serve.openai_session import OpenAiSession
from voxmlx.serve.protocol import (
    Dialect,
    Effect,
    Finish,
    Flushed,
    Lagging,
    PushAudio,
    Send,
    Served,
)
from voxmlx.serve.text_buffer import TextBuffer
from voxmlx.serve.token_logprobs import TokenLogprobs

__all__ = ["OpenAiDialect"]

# Where nobody speaks, the first stream is renewed after a second at the earliest, and one
# that hears sound again after six: it begins 2 s before, and has to come forward.
_SETTLED_IDS, _RENEWED_IDS = 13, 75

# Nor is one that is behind: on a slow machine each would begin further behind.
_CLOSE_SAMPLES = 5 * SAMPLE_RATE


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

    One stream for all turns of a connection: the model keeps what it heard before. It
    is another one once options have changed. Deltas come while a turn is spoken, before
    it is committed. A draft, for who asks for one, follows all deltas so far; it names
    the item that its words are expected in.
    """

    def __init__(
        self, served: Served, session_id: str, *, is_beta: bool = False
    ) -> None:
        super().__init__(served, session_id)
        self._session = OpenAiSession.default(served.options)
        self.options = self._session.options
        self.encoding, self.rate = self._session.encoding, self._session.rate
        self._is_beta = is_beta
        self._item: _Item | None = None
        self._committed: deque[_Item] = deque()
        self._previous_id: str | None = None
        self._logprobs = TokenLogprobs()
        self._draft = ""  # what may follow all deltas
        self._next_id: str | None = None  # of the next item, once a draft has named it
        self._opened_with = self.options  # of the stream that is open
        self._sound = RestartSound()
        self._n_ids = 0  # of the stream that is open
        self._n_settled = _SETTLED_IDS
        self._n_cut = 0  # streams whose text is dropped, up to their `Finished`
        self._starts_ms: deque[int] = deque()  # of streams, on the client's clock

    def client_ms(self, time_ms: int) -> int:
        """Return a stream time on the client's clock, which goes on over streams."""
        start_ms = self._starts_ms[0] if self._starts_ms else 0
        return start_ms + super().client_ms(time_ms)

    def push_audio(self, payload: bytes) -> list[Effect]:
        return self._noted(super().push_audio(payload))

    def finish_stream(self) -> list[Effect]:
        return self._noted(super().finish_stream())

    def flush(self, *, is_asked: bool = True) -> list[Effect]:
        self._sound.flush()
        return super().flush(is_asked=is_asked)

    def _noted(self, effects: list[Effect]) -> list[Effect]:
        """Note the sound that is sent."""
        for effect in effects:
            if isinstance(effect, PushAudio):
                self._sound.push(effect.samples)
        return effects

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
        if self._n_cut and not isinstance(event, Finished):
            return []  # the stream after it says so too
        match event:
            case TokenDecoded():
                self._logprobs.push(event)
                self._sound.decoded(self.client_ms(event.time_ms))
                if self._n_unfinished > 1:  # of a stream that is ending
                    return []
                self._n_ids += 1
                is_settled = self._n_ids >= self._n_settled
                is_close = self._sound.n_to_rewind <= _CLOSE_SAMPLES
                return self._renew_stream() if is_settled and is_close else []
            case TextDelta():
                return self._delta(event)
            case DraftChanged(text):
                self._draft = text
                return self._tell_draft()
            case UtteranceEnd(_, end_ms, time_ms):
                end_ms = self.client_ms(end_ms)
                self._sound.paused(end_ms, self.client_ms(time_ms))
                return self._turn_ends(end_ms)
            case Flushed():
                self._sound.flushed()
                effects = self._complete(self._committed.popleft())
                return [*effects, *self._moved_draft(), *self._renew_stream()]
            case Finished():
                self._starts_ms.popleft()
                self._n_cut = max(0, self._n_cut - 1)
                effects = []
                if self._item is not None and self._is_ending:
                    effects = self._commit_item(self._taken_item())
                return [*effects, *self.after_finish()]
            case _:
                return []

    def after_quiet(self) -> list[Effect]:
        """End the turn: a client that sends no silence has no pause in its sound."""
        self._sound.flushed()
        if self._item is None:
            return self._renew_stream()
        return self._turn_ends(self._item.heard_ms)

    def _delta(self, event: TextDelta) -> list[Effect]:
        text, time_ms = event.text, self.client_ms(event.time_ms)
        logprobs = self._logprobs.push(event) if self._session.include else []
        effects: list[Effect] = []
        if self._committed:
            item = self._committed[0]  # a commit is on its way through the decoder
        elif self._item is not None:
            item = self._item
        elif not text.strip():
            return []
        else:
            item = self._item = self._new_item()
            if self._session.has_vad:
                effects.append(
                    self._message(
                        "input_audio_buffer.speech_started",
                        audio_start_ms=max(0, time_ms - self._session.padding_ms),
                        item_id=item.id,
                    )
                )
        if item.is_dropped:
            return effects
        item.text.add(text)
        item.heard_ms = time_ms
        delta: dict[str, Any] = {"item_id": item.id, "content_index": 0, "delta": text}
        if self._session.include:
            item.logprobs += logprobs
            delta["logprobs"] = logprobs
        name = "conversation.item.input_audio_transcription.delta"
        return [*effects, self._message(name, **delta)]

    def _turn_ends(self, end_ms: int) -> list[Effect]:
        """End the turn at a time on the client's clock."""
        if not self._session.has_vad or self._item is None or self._committed:
            return []
        item = self._taken_item()
        stopped = self._message(
            "input_audio_buffer.speech_stopped",
            audio_end_ms=end_ms,
            item_id=item.id,
        )
        told = [stopped, *self._commit_item(item), *self._moved_draft()]
        return [*told, *self._renew_stream()]

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
        logprobs = {"logprobs": list(item.logprobs)} if self._session.include else {}
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
        return item or self._new_item()

    def _new_item(self) -> _Item:
        item_id, self._next_id = self._next_id, None
        return _Item(item_id or self.served.new_id("item"))

    def _tell_draft(self) -> list[Effect]:
        """Say what may follow the deltas, and in which item it is expected."""
        item = self._committed[0] if self._committed else self._item
        if item is not None and item.is_dropped:
            return []
        if item is None and self._next_id is None:
            self._next_id = self.served.new_id("item")
        draft = self._message(
            "conversation.item.input_audio_transcription.draft",
            item_id=self._next_id if item is None else item.id,
            content_index=0,
            draft=self._draft,
        )
        return [replace(draft, is_draft=True)]

    def _moved_draft(self) -> list[Effect]:
        """Say of a draft that its item is complete, and it is now of the next one."""
        return self._tell_draft() if self._draft else []

    def _commit(self, _: JsonObject) -> list[Effect]:
        if self.has_sent_nothing and self._item is None:
            raise RequestError(
                "nothing was appended since the last commit",
                code="input_audio_buffer_commit_empty",
            )
        item = self._taken_item()
        if not self.has_unflushed:  # all of it is out
            told = [*self._commit_item(item), *self._moved_draft()]
            return [*told, *self._renew_stream()]
        self._committed.append(item)
        return [*self._announce(item), *self.flush()]

    def _clear(self, _: JsonObject) -> list[Effect]:
        cleared = self._message("input_audio_buffer.cleared")
        if not self.is_open or not self.has_unflushed:
            self._item = None
            self.take_sent_seconds()
            return [cleared, *self._renew_stream()]
        # What the decoder heard it cannot forget: its words are not passed on.
        item = self._taken_item()
        item.is_dropped = True
        self._committed.append(item)
        return [cleared, *self.flush()]

    def _update(self, message: JsonObject) -> list[Effect]:
        asked = message.section("session")
        new = self._session.updated(asked, self.served.names)
        if self.is_open and (new.encoding, new.rate) != (self.encoding, self.rate):
            raise asked.wrong(
                "format", "cannot change once there is sound", "session_already_started"
            )
        self._session, self.options = new, new.options
        self.encoding, self.rate = new.encoding, new.rate
        told = self._session_message("updated")
        return [told] if self.has_unflushed else [told, *self._renew_stream()]

    def _update_beta(self, message: JsonObject) -> list[Effect]:
        self._is_beta = True
        return self._update(message)

    def open(self) -> list[Effect]:
        if not self.is_open:
            self._opened_with = self.options
            self._n_ids, self._n_settled = 0, _SETTLED_IDS
            self._starts_ms.append(self._sound.start_ms)
        return super().open()

    def _renew_stream(self) -> list[Effect]:
        """End a stream whose options have changed, between two turns.

        Another hears the sound since the last quiet moment again, or is opened by the
        sound that follows. Agents change options at any time, and end at any error.
        """
        is_stale = self.is_open and self._opened_with != self.options
        is_in_turn = self._item is not None or self._committed or self._flushes
        if not is_stale or is_in_turn or not self._sound.may_rewind:
            return []
        self._sound.rewind()
        if not self._sound.n_again:
            return self.finish_stream()
        told: list[Effect] = []
        if self._draft:
            self._draft = ""
            told = self._tell_draft()
        self._logprobs = TokenLogprobs()
        self._n_cut += 1
        pcm, self.is_open = self._pcm, False
        opened = self.open()
        self._n_settled = _RENEWED_IDS
        self._pcm = pcm  # the sound goes on
        return [*told, Finish(is_cut=True), *opened, PushAudio(self._sound.take())]

    def _message(self, kind: str, **fields: Any) -> Send:
        return Send({"type": kind, "event_id": self.served.new_id("event"), **fields})

    def _session_message(self, what: str) -> Send:
        kind = "transcription_session" if self._is_beta else "session"
        shown = self._session.shown(
            self.session_id, self.served.model, is_beta=self._is_beta
        )
        return self._message(f"{kind}.{what}", session=shown)

    handlers: ClassVar[Mapping[str, Callable[[Any, JsonObject], list[Effect]]]] = {
        "session.update": _update,
        "transcription_session.update": _update_beta,
        "input_audio_buffer.append": Dialect.append_audio,
        "input_audio_buffer.commit": _commit,
        "input_audio_buffer.clear": _clear,
    }
