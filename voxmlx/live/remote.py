"""A stream that a server decodes: sound goes there, events come back."""

import base64
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from voxmlx.config import DEFAULT_DELAY_MS, SAMPLE_RATE, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.errors import ServerError
from voxmlx.events import Event, Finished, TextDelta
from voxmlx.live.remote_events import RemoteEvents
from voxmlx.live.stream_metrics import StreamMetrics

__all__ = ["RemoteMetrics", "RemoteStream", "server_url"]

_PATH = "/v1/realtime"

_OPEN_S = 10.0
# How long a server may be silent once all sound is there.
_END_S = 60.0
# How long `finish` waits for news before it returns without any.
_NEWS_S = 0.1
# A server that is behind reads nothing for a while, pings included.
_PING_TIMEOUT_S = 180.0
_MAX_MESSAGE_BYTES = 64 << 20

# Sound that has been sent and not spoken about: half an hour of it.
_N_SENT = 30 * 60 * SAMPLE_RATE // SAMPLES_PER_AUDIO_TOKEN


def server_url(address: str) -> str:
    """The websocket of a server: `ws://host:port`, with or without scheme and path.

    Raises ServerError.
    """
    url = address if "://" in address else f"ws://{address}"
    scheme, _, rest = url.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        if scheme in ("ws", "wss") and parts.hostname and parts.port != 0:
            path = parts.path if parts.path not in ("", "/") else _PATH
            return parts._replace(path=path).geturl()
    except ValueError:  # a port that is no number
        pass
    raise ServerError(
        f"--server {address} is no address of a server, expected ws://HOST:PORT"
    )


class RemoteMetrics(StreamMetrics):
    """Lag alone: what a step takes is known to the server."""

    def stepped(self, n_tokens: int, seconds: float, lags: Sequence[float]) -> None:
        del n_tokens, seconds, lags

    def lagged(self, seconds: float) -> None:
        """Note how old the sound is that text has come about."""
        self._lags.append(seconds)


class RemoteStream:
    """A session's likeness, from one thread. Sound goes as PCM16 at 16 kHz.

    When the server breaks off, what it has said until then still comes out; the
    ServerError is raised by the call after that.
    """

    def __init__(
        self,
        url: str,
        told: RemoteEvents,
        *,
        session: Mapping[str, Any],
        delay_ms: int | None,
        key: str | None = None,
        metrics: RemoteMetrics | None = None,
    ) -> None:
        """Open a stream; `session` is what its `session.update` says.

        Without `delay_ms` the delay is the server's own. With a `metrics` lag is measured. Raises ServerError.
        """
        self._url = url
        self._remote_events = told
        self.delay_ms = delay_ms
        self._metrics = metrics
        self._error: ServerError | None = None
        # (stream time at its end, when it was sent) of sound no text has come about.
        self._sent: deque[tuple[int, float]] = deque(maxlen=_N_SENT)
        self._inbox: deque[str] = deque()
        self._is_ending = self._is_finished = False
        self._heard_from_at = time.monotonic()
        self._n_samples = 0
        with ExitStack() as stack:
            self._socket = _connect(url, key, stack)
            self._greet()
            delay = {} if delay_ms is None else {"delay_ms": delay_ms}
            self._send({"type": "session.update", **session, **delay})
            self._send({"type": "input_audio_buffer.commit"})
            self._opened = stack.pop_all()

    @property
    def samples_wanted(self) -> int:
        """Samples to push to complete an audio token; 0 if the server has news."""
        self._look(0)
        if self._inbox or self._error is not None:
            return 0
        return SAMPLES_PER_AUDIO_TOKEN - self._n_samples % SAMPLES_PER_AUDIO_TOKEN

    def push(self, samples: np.ndarray, /) -> list[Event]:
        """Send sound; what the server has said. Raises ServerError."""
        self._raise()
        if len(samples):
            pcm = np.rint(samples * 32768.0).clip(-32768, 32767).astype("<i2")
            self._remote_events.push(samples)
            self._n_samples += len(samples)
            self._sent.append((self._remote_events.duration_ms, time.monotonic()))
            audio = base64.b64encode(pcm.tobytes()).decode()
            self._send({"type": "input_audio_buffer.append", "audio": audio})
        return self._news(0)

    def finish(self) -> list[Event]:
        """End the stream; called until a `Finished` comes. Raises ServerError."""
        self._raise()
        if not self._is_ending:
            self._is_ending = True
            self._heard_from_at = time.monotonic()
            self._send({"type": "input_audio_buffer.commit", "final": True})
        events = self._news(_NEWS_S)
        if not events and time.monotonic() - self._heard_from_at > _END_S:
            self._fail(f"has said nothing for {_END_S:g} s")
            return self._remote_events.flush()
        return events

    def close(self) -> None:
        self._opened.close()

    def _greet(self) -> None:
        """Wait for the server's first message, which says whether there is a place."""
        self._look(_OPEN_S)
        for text in self._inbox:
            message = self._parsed(text)
            if message is not None and message.get("type") == "error":
                self._refuse(message)
        if not self._inbox and self._error is None:
            self._fail("does not greet its clients")
        self._raise()

    def _raise(self) -> None:
        if self._error is not None and not self._inbox:
            raise self._error

    def _fail(self, what: str) -> None:
        if self._error is None:
            self._error = ServerError(f"the server {self._url} {what}")

    def _send(self, message: Mapping[str, Any]) -> None:
        from websockets.exceptions import ConnectionClosed  # of an extra

        if self._error is not None:
            return
        try:
            self._socket.send(json.dumps(message))
        except ConnectionClosed:
            self._look(_OPEN_S)  # it may have said why

    def _look(self, timeout_s: float) -> None:
        """Take in what has come; wait for the first of it."""
        from websockets.exceptions import ConnectionClosed  # of an extra

        while self._error is None:
            try:
                text = self._socket.recv(timeout=timeout_s)
            except TimeoutError:
                return
            except ConnectionClosed as closed:
                if not self._is_finished:
                    self._fail(f"has ended the connection{_reason(closed)}")
                return
            self._inbox.append(text if isinstance(text, str) else "")
            self._heard_from_at = time.monotonic()
            timeout_s = 0

    def _news(self, timeout_s: float) -> list[Event]:
        if not self._inbox:
            self._look(timeout_s)
        events: list[Event] = []
        while self._inbox:
            message = self._parsed(self._inbox.popleft())
            if message is None:
                continue
            if message.get("type") == "error":
                self._refuse(message)
            else:
                self._note_delay(message)
                try:
                    events += self._remote_events.receive(message)
                except ServerError as error:
                    self._fail(f"is not understood: {error}")
        self._note_lag(events)
        if any(isinstance(event, Finished) for event in events):
            if self._is_ending:
                self._is_finished = True
                return events
            events = [event for event in events if not isinstance(event, Finished)]
            self._fail("has ended the stream; it may be shutting down")
        if self._error is not None:
            events += self._remote_events.flush()
        return events

    def _parsed(self, text: str) -> Mapping[str, Any] | None:
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if isinstance(message, dict):
            return message
        self._fail("speaks no JSON")
        return None

    def _refuse(self, message: Mapping[str, Any]) -> None:
        """An `error`: all we send is right, so that it is no use to go on."""
        detail = message.get("error")
        if isinstance(detail, dict):  # OpenAI's form
            detail = detail.get("message")
        self._error = ServerError(f"the server {self._url} says: {detail}")

    def _note_delay(self, message: Mapping[str, Any]) -> None:
        """Our server says which delay a stream has, if nobody has asked for one."""
        session = message.get("session")
        if self.delay_ms is None and isinstance(session, dict):
            delay_ms = session.get("delay_ms")
            self.delay_ms = delay_ms if isinstance(delay_ms, int) else None

    def _note_lag(self, events: Sequence[Event]) -> None:
        texts = [event for event in events if isinstance(event, TextDelta)]
        if self._metrics is None or not texts:
            return
        needed_ms = texts[-1].time_ms + (self.delay_ms or DEFAULT_DELAY_MS)
        while len(self._sent) > 1 and self._sent[0][0] < needed_ms:
            self._sent.popleft()
        if self._sent and self._sent[0][0] >= needed_ms:
            self._metrics.lagged(time.monotonic() - self._sent[0][1])


def _connect(url: str, key: str | None, stack: ExitStack) -> Any:
    """A websocket, until the stack is closed. Raises ServerError."""
    try:
        # Local imports: what only this needs is an extra of the package.
        from websockets.exceptions import InvalidHandshake, InvalidStatus
        from websockets.sync.client import connect
    except ModuleNotFoundError as error:
        raise ServerError(
            f"--server needs {error.name}, which is not installed; install it with "
            "pip install 'voxmlx-realtime[serve]'"
        ) from None
    is_here = (urlsplit(url).hostname or "") in ("localhost", "127.0.0.1", "::1")
    try:
        connection = connect(
            url,
            additional_headers={"Authorization": f"Bearer {key}"} if key else None,
            # Sound is hardly compressed.
            compression=None,
            # A proxy knows no other machine by these names.
            proxy=None if is_here else True,
            open_timeout=_OPEN_S,
            close_timeout=1.0,
            ping_timeout=_PING_TIMEOUT_S,
            max_size=_MAX_MESSAGE_BYTES,
            # Text waits here, not at the server, while sound is being sent.
            max_queue=None,
        )
        return stack.enter_context(connection)
    except InvalidStatus as refused:
        raise ServerError(
            f"the server {url} lets nobody in{_refusal(refused.response)}"
        ) from None
    except InvalidHandshake:
        raise ServerError(f"{url} answers, but is no such server") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise ServerError(
            f"cannot reach the server {url}: {reason}; is it running? "
            "(python -m voxmlx.serve)"
        ) from None


def _refusal(response: Any) -> str:
    """Why, as far as the answer to a handshake says."""
    try:
        told = json.loads(response.body or b"").get("error")
        text = told.get("message") if isinstance(told, dict) else str(told)
    except (ValueError, AttributeError):
        text = response.reason_phrase
    hint = "; give the right --api-key" if response.status_code == 401 else ""
    return f" (HTTP {response.status_code}: {text}){hint}"


def _reason(closed: Any) -> str:
    """Of a connection that is closed: what was said about it."""
    if closed.rcvd is None:
        return ""
    reason = f": {closed.rcvd.reason}" if closed.rcvd.reason else ""
    return f" (code {closed.rcvd.code}{reason})"
