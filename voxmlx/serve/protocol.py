"""The base of all realtime dialects: commands, notices, and reading of messages.

A dialect is pure code: messages of a client and events of its stream go in, messages
to the client and commands to the stream come out. No sockets, threads or clocks.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from voxmlx.config import LEFT_PAD_TOKENS, delay_tokens
from voxmlx.errors import RequestError, VoxmlxError
from voxmlx.events import Event, Finished
from voxmlx.serve.json_object import JsonObject
from voxmlx.serve.pcm import ENCODINGS, PcmDecoder, decode_base64
from voxmlx.serve.stream_options import StreamOptions, checked_options

__all__ = [
    "Close",
    "Command",
    "Dialect",
    "Effect",
    "Failed",
    "Finish",
    "Flush",
    "Flushed",
    "Lagging",
    "Notice",
    "Open",
    "PushAudio",
    "Send",
    "Served",
]

GOING_AWAY, POLICY_VIOLATION, INTERNAL_ERROR, TRY_AGAIN_LATER = 1001, 1008, 1011, 1013

# Behind by this much, every client is told; less only where it asked.
_MUCH_LAG_MS = 1000


@dataclass(frozen=True, slots=True)
class Served:
    """The server's model and defaults, and its sources of ids and time."""

    model: str
    options: StreamOptions
    new_id: Callable[[str], str]  # prefix -> "prefix_..."
    now_s: Callable[[], int]
    left_pad_tokens: int = LEFT_PAD_TOKENS
    aliases: tuple[str, ...] = ()  # more names of the model

    @property
    def names(self) -> tuple[str, ...]:
        """Return all names of the model, the one that messages show first."""
        return (self.model, *self.aliases)

    def prompt_tokens(self, delay_ms: int) -> int:
        """Return the number of ids in a stream's prompt."""
        return 1 + self.left_pad_tokens + delay_tokens(delay_ms)


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a stream; all that follows is about it, until its `Finish`."""

    options: StreamOptions


@dataclass(frozen=True, slots=True)
class PushAudio:
    """Sound, float32 [n] at 16 kHz."""

    samples: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Flush:
    """Bring out the words spoken so far; `Flushed` says when they are."""


@dataclass(frozen=True, slots=True)
class Finish:
    """End the stream; its last event is `Finished`.

    With `is_cut`, what has not been decoded is dropped.
    """

    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """A message to the client; of drafts, the newest takes the place of those before."""

    message: dict[str, Any]
    is_draft: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """End the connection, as a websocket's closing code says."""

    code: int = 1000
    reason: str = ""


Command = Open | PushAudio | Flush | Finish
Effect = Command | Send | Close


@dataclass(frozen=True, slots=True)
class Flushed:
    """A `Flush` is done; it took `silence_ms` of silence that nobody sent."""

    silence_ms: int


@dataclass(frozen=True, slots=True)
class Lagging:
    """The last decoded sound came `lag_ms` ago; `waiting_ms` of sound still wait."""

    lag_ms: int
    waiting_ms: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The stream could not be opened, or has ended early."""

    error: RequestError


Notice = Event | Flushed | Lagging | Failed


class Dialect(ABC):
    """One client's side of a connection, in the words of one protocol."""

    encoding = "pcm_s16le"
    rate = 16_000
    n_channels = 1

    # Message type -> method; subclasses fill it.
    handlers: ClassVar[Mapping[str, Callable[[Any, JsonObject], list[Effect]]]] = {}

    def __init__(self, served: Served, session_id: str) -> None:
        self.served = served
        self.session_id = session_id
        self.options = served.options
        self.is_open = False
        self._pcm: PcmDecoder | None = None
        self._n_unfinished = 0  # streams that will still say `Finished`
        self._is_ending = False
        self._is_lagging = False
        self._flushes: deque[bool] = deque()  # on their way; whether the client asked
        self._has_unflushed = False
        self._silence_ms = 0  # of the stream's clock that nobody sent
        self._n_sent_bytes = 0

    @abstractmethod
    def greeting(self) -> list[Effect]:
        """Return the server's first messages."""

    @abstractmethod
    def on_event(self, event: Event | Flushed) -> list[Effect]:
        """Return the messages of this protocol for an event of the stream."""

    @abstractmethod
    def error(self, error: RequestError, event_id: str | None = None) -> Send:
        """The message that says what is wrong."""

    def lag(self, lagging: Lagging) -> dict[str, Any]:
        """No protocol has a message for it, and all let clients ignore others."""
        return {
            "type": "session.lag",
            "lag_ms": lagging.lag_ms,
            "waiting_ms": lagging.waiting_ms,
        }

    @property
    def wants_all_lag(self) -> bool:
        return False

    def receive(self, message: JsonObject) -> list[Effect]:
        """Answer a client's message. Raises RequestError."""
        kind = message.text("type")
        handler = self.handlers.get(kind)
        if handler is None:
            known = ", ".join(self.handlers)
            raise RequestError(
                f"type {kind[:60]!r} is unknown, expected one of {known}",
                code="unknown_event",
                param="type",
            )
        return handler(self, message)

    def notice(self, notice: Notice) -> list[Effect]:
        """Tell the client what its stream says."""
        match notice:
            case Failed(error):
                self.is_open = self._has_unflushed = False
                code = TRY_AGAIN_LATER if error.status == 503 else INTERNAL_ERROR
                return [self.error(error), Close(code, error.code)]
            case Lagging(lag_ms):
                is_lagging = lag_ms >= _MUCH_LAG_MS
                is_news = is_lagging or self._is_lagging or self.wants_all_lag
                self._is_lagging = is_lagging
                return [Send(self.lag(notice))] if is_news else []
            case Finished():
                self._n_unfinished -= 1
                effects = self.on_event(notice)
                self._silence_ms = 0
                return effects
            case Flushed(silence_ms):
                self._silence_ms += silence_ms
                is_asked = self._flushes.popleft()
                return self.on_event(notice) if is_asked else self.after_quiet()
            case _:
                return self.on_event(notice)

    def quiet(self) -> list[Effect]:
        """Bring out the last words of a client that has sent nothing for a while."""
        return self.flush(is_asked=False) if self._has_unflushed else []

    def after_quiet(self) -> list[Effect]:
        """Return what the client is told once `quiet` has brought out its words."""
        return []

    def flush(self, *, is_asked: bool = True) -> list[Effect]:
        """Bring out the words so far; `on_event` sees the `Flushed` if `is_asked`."""
        self._has_unflushed = False
        self._flushes.append(is_asked)
        return [Flush()]

    def client_ms(self, time_ms: int) -> int:
        """Return a stream time on the client's clock, which has no silence of ours."""
        return max(0, time_ms - self._silence_ms)

    @property
    def has_stream(self) -> bool:
        """Return whether a stream was begun that has not said `Finished`."""
        return self._n_unfinished > 0

    @property
    def has_sent_nothing(self) -> bool:
        """Return whether no sound came since the last `take_sent_seconds`."""
        return self._n_sent_bytes == 0

    @property
    def has_unflushed(self) -> bool:
        """Return whether words may be missing: new sound, or a flush on its way."""
        return self._has_unflushed or bool(self._flushes)

    def take_sent_seconds(self) -> float:
        """Return the duration of the sound that came since the last call."""
        n_samples = self._n_sent_bytes // ENCODINGS[self.encoding][0] // self.n_channels
        self._n_sent_bytes = 0
        return n_samples / self.rate

    def end(self) -> list[Effect]:
        """The server goes away: bring out what was said, then close."""
        self._is_ending = True
        if self.is_open:
            return self.finish_stream()
        return self.after_finish()

    def after_finish(self) -> list[Effect]:
        """Return what ends the connection after a `Finished`, if the server is stopping."""
        if self._is_ending and self._n_unfinished == 0:
            return [Close(GOING_AWAY, "the server is shutting down")]
        return []

    def open(self) -> list[Effect]:
        """Begin a stream if none is open."""
        if self.is_open:
            return []
        self._pcm = self._new_pcm()
        self.is_open = True
        self._n_unfinished += 1
        return [Open(self.options)]

    def append_audio(self, message: JsonObject) -> list[Effect]:
        """The sound of an append message, which opens a stream."""
        return self.push_audio(decode_base64(message.text("audio", max_chars=None)))

    def push_audio(self, payload: bytes) -> list[Effect]:
        """Sound as the client encodes it, which opens a stream. Raises RequestError."""
        # Sound that is refused opens nothing: its stream would be unknown elsewhere.
        pcm = self._pcm if self.is_open else self._new_pcm()
        assert pcm is not None
        try:
            samples = pcm.push(payload)
        except VoxmlxError as error:
            raise RequestError(
                str(error), code="invalid_audio", param="audio"
            ) from None
        effects = self.open()
        self._pcm = pcm
        self._n_sent_bytes += len(payload)
        if not len(samples):
            return effects
        self._has_unflushed = True
        return [*effects, PushAudio(samples)]

    def _new_pcm(self) -> PcmDecoder:
        return PcmDecoder(self.encoding, self.rate, self.n_channels)

    def finish_stream(self) -> list[Effect]:
        """End the stream, which is opened if it was not."""
        effects = self.open()
        assert self._pcm is not None
        rest = self._pcm.flush()
        self.is_open = self._has_unflushed = False
        return [*effects, *([PushAudio(rest)] if len(rest) else []), Finish()]

    def choose(self, **options: Any) -> None:
        """Change the options of the stream. Raises RequestError once one is open."""
        chosen = replace(self.options, **options)
        if chosen == self.options:
            return
        if self.is_open:
            changed = [n for n in options if options[n] != getattr(self.options, n)]
            raise RequestError(
                f"{', '.join(changed)} cannot change once there is sound; send "
                "session.update before it",
                code="session_already_started",
                param="session",
            )
        checked_options(chosen)
        self.options = chosen
