"""A server as vLLM's is: one stream a connection, a delta for every audio token."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from voxmlx import Checkpoint, Session
from voxmlx.events import Event, TextDelta, TokenDecoded

__all__ = ["VllmLike", "listening"]


class VllmLike:
    """Handles one connection after the other; stricter than vLLM, which overlooks much.

    After `n_tokens` deltas it does what `trouble` does to the connection.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        model: str = "voxtral",
        n_tokens: int = 1 << 30,
        trouble: Callable[[ServerConnection], None] = ServerConnection.close,
    ) -> None:
        self._checkpoint = checkpoint
        self._model = model
        self.n_tokens = n_tokens
        self.trouble = trouble
        self.text = ""

    def __call__(self, websocket: ServerConnection) -> None:
        def send(**message: Any) -> None:
            websocket.send(json.dumps(message))

        def tell(events: list[Event]) -> None:
            deltas = {e.time_ms: e.text for e in events if isinstance(e, TextDelta)}
            for event in events:
                if isinstance(event, TokenDecoded):
                    delta = deltas.get(event.time_ms, "")
                    self.text += delta
                    send(type="transcription.delta", delta=delta)
                    self.n_tokens -= 1
                    if self.n_tokens == 0:
                        self.trouble(websocket)

        session, is_validated, is_started = Session(self._checkpoint), False, False
        send(type="session.created", id="sess-1", created=1)
        try:
            for text in websocket:
                message = json.loads(text)
                match message:
                    case {"type": "session.update", "model": self._model}:
                        is_validated = True
                    case {"type": "session.update", "model": model}:
                        error = f"The model `{model}` does not exist."
                        send(type="error", error=error, code="model_not_found")
                        return
                    case {"type": "input_audio_buffer.commit", "final": True}:
                        tell(session.finish())
                        usage = {"completion_tokens": 7, "total_tokens": 7}
                        send(type="transcription.done", text=self.text, usage=usage)
                    case {"type": "input_audio_buffer.commit"}:
                        assert is_validated
                        is_started = True
                    case {"type": "input_audio_buffer.append", "audio": audio}:
                        assert is_started
                        assert audio, "vLLM refuses empty sound"
                        pcm = np.frombuffer(base64.b64decode(audio), np.int16)
                        tell(session.push(pcm))
                    case _:
                        raise AssertionError(message)
        except ConnectionClosed:
            pass


@contextmanager
def listening(handler: Callable[[ServerConnection], None]) -> Iterator[str]:
    """A websocket server on a free port of this machine; its address."""
    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()
