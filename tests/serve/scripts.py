"""Clients of the realtime dialects, as lists of messages, and a stream to answer."""

import base64
import json
from itertools import count
from typing import Any

import numpy as np

from voxmlx.events import Finished, TextDelta, UtteranceEnd
from voxmlx.serve.conversation import Conversation, Hints, WyomingConversation
from voxmlx.serve.json_object import JsonObject
from voxmlx.serve.protocol import (
    Close,
    Effect,
    Finish,
    Flush,
    Flushed,
    Notice,
    Open,
    PushAudio,
    Send,
    Served,
)
from voxmlx.serve.stream_options import StreamOptions

__all__ = [
    "BETA",
    "DIALECTS",
    "MISTRAL",
    "OPENAI",
    "Talk",
    "WyomingTalk",
    "append",
    "audio",
    "first_sound",
    "mistral_append",
    "served",
]

OPENAI = Hints(intent="transcription")
BETA = Hints(is_beta=True, has_openai_headers=True)
MISTRAL = Hints(path="/v1/audio/transcriptions/realtime")
# How a client of each dialect over a websocket connects.
DIALECTS = {"vllm": Hints(), "openai": OPENAI, "beta": BETA, "mistral": MISTRAL}


def served() -> Served:
    numbers = count(1)
    return Served(
        model="demo",
        options=StreamOptions(),
        new_id=lambda prefix: f"{prefix}_{next(numbers)}",
        now_s=lambda: 1_700_000_000,
    )


def audio(n_samples: int, dtype: str = "<i2") -> str:
    return base64.b64encode(np.zeros(n_samples, dtype).tobytes()).decode()


def first_sound(hints: Hints, n_samples: int = 2400) -> dict[str, Any]:
    """Return the message with which a client of a dialect sends sound."""
    return mistral_append(n_samples) if hints is MISTRAL else append(n_samples)


def mistral_append(n_samples: int = 160) -> dict[str, Any]:
    return {"type": "input_audio.append", "audio": audio(n_samples)}


def append(n_samples: int = 160) -> dict[str, Any]:
    return {"type": "input_audio_buffer.append", "audio": audio(n_samples)}


class Talk:
    """A conversation, and what the client has been told in it.

    Commands go to a stream that says nothing by itself: it checks their order and
    answers a flush and the end.
    """

    def __init__(self, hints: Hints | None = None) -> None:
        self._begin(Conversation(served(), hints or Hints()))

    def _begin(self, conversation: Any) -> None:
        self.conversation = conversation
        self.told: list[dict[str, Any]] = []
        self.commands: list[Effect] = []
        self.is_closed = False
        self._is_open = False
        self.follow(self.conversation.begin())

    def says(self, *messages: dict[str, Any] | str) -> list[dict[str, Any]]:
        """The client's messages; what it is told in answer."""
        n = len(self.told)
        for message in messages:
            text = message if isinstance(message, str) else json.dumps(message)
            self.follow(self.conversation.receive(text))
        return self.told[n:]

    def hears(self, *notices: Notice) -> list[dict[str, Any]]:
        """What the stream says; what the client is told of it."""
        n = len(self.told)
        for notice in notices:
            self.follow(self.conversation.notice(notice))
        return self.told[n:]

    def follow(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(message):
                    # What is told must survive the way there.
                    self.told.append(json.loads(json.dumps(message, allow_nan=False)))
                case Close():
                    self.is_closed = True
                case Open():
                    assert not self._is_open
                    self._is_open = True
                    self.commands.append(effect)
                case PushAudio(samples):
                    assert self._is_open
                    assert samples.dtype == np.float32
                    assert np.isfinite(samples).all()
                    self.commands.append(effect)
                case Flush():
                    assert self._is_open
                    self.commands.append(effect)
                    self.hears(TextDelta(" flushed", 80), Flushed(1000))
                case Finish():
                    assert self._is_open
                    self._is_open = False
                    self.commands.append(effect)
                    self.hears(
                        TextDelta(" end", 160),
                        UtteranceEnd(0, 100, 160),
                        Finished(160, 2),
                    )

    @property
    def n_heard(self) -> int:
        return sum(len(c.samples) for c in self.commands if isinstance(c, PushAudio))


class WyomingTalk(Talk):
    """The same for a client of Wyoming; `payload` is a field of its messages."""

    def __init__(self) -> None:
        self._begin(WyomingConversation(served()))

    def says(self, *messages: dict[str, Any] | str) -> list[dict[str, Any]]:
        n = len(self.told)
        for message in messages:
            assert isinstance(message, dict)
            payload = message.get("payload", b"")
            fields = {name: one for name, one in message.items() if name != "payload"}
            self.follow(self.conversation.receive(JsonObject(fields, payload=payload)))
        return self.told[n:]
