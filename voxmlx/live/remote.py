"""A stream that a server decodes: sound goes there, events come back.

States: LINKED, a connection takes sound and sends messages. AWAY, it has broken off and
attempts to reach the server are under way; sound is kept. OVER, an error has ended it,
which is raised once all events are out, or `Finished` has come.

  LINKED --broken off--> AWAY --let in--> LINKED, from a restart point of the sound
  AWAY --time is up, or refused for good--> OVER

Nothing is kept in AWAY but what LINKED keeps too: sound since the restart point, at
most `_KEPT_SAMPLES` of it.
"""

import base64
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from voxmlx.cli.json_fields import fields_of
from voxmlx.config import DEFAULT_DELAY_MS, SAMPLE_RATE, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.errors import ServerError
from voxmlx.events import DraftChanged, Event, Finished, TextDelta
from voxmlx.live.kept_sound import KeptSound
from voxmlx.live.reconnecting import Reconnecting
from voxmlx.live.remote_events import RemoteEvents
from voxmlx.live.server_connection import ServerConnection
from voxmlx.live.splice import Splice
from voxmlx.live.stream_metrics import StreamMetrics

__all__ = ["RemoteMetrics", "RemoteStream"]

# How long a server may be silent once all sound is there.
_END_S = 60.0
# How long `finish` waits for news before it returns without any.
_NEWS_S = 0.1
# How long a server may leave a ping unanswered. One that is minutes behind, as with a
# file that is sent as fast as it can be, reads nothing for a while, pings included.
_LIVE_PING_TIMEOUT_S, _FILE_PING_TIMEOUT_S = 20.0, 180.0

# Twenty minutes: 38 MB.
_KEPT_SAMPLES = 20 * 60 * SAMPLE_RATE
# One message of sound, and what goes at a time before somebody else has a turn.
_MESSAGE_SAMPLES = 32 * SAMPLES_PER_AUDIO_TOKEN
_N_MESSAGES = 8
# More samples than ever come: a file waits meanwhile.
_WANTS_NONE = 1 << 62

# Sound that has been sent and not spoken about: half an hour of it.
_N_SENT = 30 * 60 * SAMPLE_RATE // SAMPLES_PER_AUDIO_TOKEN

# Of sound that a server has surely decoded, this is how far the lag may be wrong.
_LAG_MARGIN_MS = 20_000


class RemoteMetrics(StreamMetrics):
    """Lag alone: what a step takes is known to the server."""

    def stepped(self, n_tokens: int, seconds: float, lags: Sequence[float]) -> None:
        del n_tokens, seconds, lags

    def lagged(self, seconds: float) -> None:
        """Note how old the sound is that text has come about."""
        self._lags.append(seconds)


class RemoteStream:
    """A session's likeness, from one thread. Sound goes as PCM16 at 16 kHz.

    When the server breaks off, the stream tries to reach it again for `reconnect_s`.
    If that fails, what was said until then still comes out; the ServerError is raised
    by the call after that. `notify` gets a sentence when the server is lost, and one
    when it is there again.
    """

    def __init__(
        self,
        url: str,
        new_events: Callable[[], RemoteEvents],
        *,
        session: Mapping[str, Any],
        delay_ms: int | None,
        draft_delay_ms: int | None = None,
        key: str | None = None,
        metrics: RemoteMetrics | None = None,
        reconnect_s: float = 0.0,
    ) -> None:
        """Open a stream; `session` is what its `session.update` says.

        Without `delay_ms` the delay is the server's own. With `draft_delay_ms`, drafts are
        asked for; `notify` is told if the server has none. With a `metrics` the sound is
        live: lag is measured, and sound never waits for the server. Raises ServerError.
        """
        self.notify: Callable[[str], None] = lambda sentence: None
        self.delay_ms = delay_ms
        self._url, self._key = url, key
        self._session = dict(session)
        if draft_delay_ms is not None:
            self._session["draft_delay_ms"] = draft_delay_ms
        # Whether drafts were asked for, and the server has not said that it sends them.
        self._misses_drafts = draft_delay_ms is not None
        self._draft: DraftChanged | None = None
        self._new_events = new_events
        self._metrics = metrics
        self._reconnect_s = reconnect_s
        self._error: ServerError | None = None
        # (stream time at its end, when it came) of sound no text has come about.
        self._sent: deque[tuple[int, float]] = deque(maxlen=_N_SENT)
        self._is_ending = self._is_end_sent = False
        self._kept = KeptSound(_KEPT_SAMPLES)
        self._splice = Splice()
        # Messages of a server that shuts down. It has heard the sound to some point,
        # maybe within a word, and then silence that nobody sent.
        self._is_cut = False
        self._cut: list[Mapping[str, Any]] = []
        self._reconnecting: Reconnecting | None = None
        self._lost_at, self._has_news, self._n_attempts = 0.0, False, 0
        self._connection: ServerConnection | None = self._connect()
        self._begin(0)

    @property
    def samples_wanted(self) -> int:
        """Samples to push to complete an audio token; 0 if the server has news."""
        if self._error is not None:
            return 0
        if self._connection is None:
            assert self._reconnecting is not None
            if self._reconnecting.is_done():
                return 0
            if self._metrics is None:
                return _WANTS_NONE
        else:
            self._connection.look(0)
            if self._connection.inbox or self._connection.error or self._kept.n_unsent:
                return 0
        return SAMPLES_PER_AUDIO_TOKEN - self._kept.end % SAMPLES_PER_AUDIO_TOKEN

    def push(self, samples: np.ndarray, /) -> list[Event]:
        """Send sound; what the server has said. Raises ServerError."""
        self._raise()
        if len(samples):
            self._kept.push(samples)
            self._sent.append((_ms(self._kept.end), time.monotonic()))
        self._send_sound()
        return self._news(0)

    def finish(self) -> list[Event]:
        """End the stream; called until a `Finished` comes. Raises ServerError."""
        self._raise()
        if not self._is_ending:
            self._is_ending = True
            if self._connection is not None:
                self._connection.heard_at = time.monotonic()
        self._send_sound()
        connection = self._connection
        if connection is not None and not self._kept.n_unsent and not self._is_end_sent:
            connection.send({"type": "input_audio_buffer.commit", "final": True})
            self._is_end_sent = True
        events = self._news(_NEWS_S)
        if connection is None or connection is not self._connection or events:
            return events
        if time.monotonic() - connection.heard_at > _END_S:
            connection.fail(f"has said nothing for {_END_S:g} s")
            return self._broken_off(connection)
        return []

    def close(self) -> None:
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        if self._connection is not None:
            self._connection.close()

    # ---- The connection.

    def _connect(self) -> ServerConnection:
        is_live = self._metrics is not None
        return ServerConnection(
            self._url,
            self._key,
            ping_timeout_s=_LIVE_PING_TIMEOUT_S if is_live else _FILE_PING_TIMEOUT_S,
        )

    def _begin(self, base: int) -> None:
        """Open a stream at the server for the sound from `base` on."""
        assert self._connection is not None
        self._base_ms = _ms(base)
        self._remote_events = self._new_events()
        self._is_end_sent = self._has_news = False
        self._begun_at = time.monotonic()
        delay = {} if self.delay_ms is None else {"delay_ms": self.delay_ms}
        self._connection.send({"type": "session.update", **self._session, **delay})
        self._connection.send({"type": "input_audio_buffer.commit"})

    def _broken_off(self, connection: ServerConnection) -> list[Event]:
        """The connection has ended: try to get another one, or give up."""
        error = connection.error
        assert error is not None
        self._connection = None
        now = time.monotonic()
        is_new = not self._lost_at or self._has_news or now > self._begun_at + _STEADY_S
        if is_new:
            self._lost_at, self._n_attempts = now, 0
        until = self._lost_at + self._reconnect_s
        if not error.may_return or self._reconnect_s <= 0 or now > until:
            connection.close()
            return self._give_up(error)
        if is_new:
            self.notify(
                f"{error}; trying again for {self._reconnect_s:g} s, sound is kept"
            )

        def connect() -> ServerConnection:
            connection.close()  # which may take a while
            return self._connect()

        self._reconnecting = Reconnecting(
            connect, until=until, n_before=self._n_attempts
        )
        draft, self._draft = self._draft, None
        return [replace(draft, text="")] if draft and draft.text else []

    def _try_again(self, timeout_s: float) -> list[Event]:
        """Go on with a connection that is there, if it is; or give up."""
        attempts = self._reconnecting
        assert attempts is not None
        if not attempts.is_done(timeout_s):
            return []
        self._reconnecting, self._n_attempts = None, attempts.n_attempts
        self._connection = attempts.take()
        if self._connection is None:
            error = attempts.error
            assert error is not None
            if error.may_return:
                error = ServerError(
                    f"{error}; tried for {self._reconnect_s:g} s (--reconnect)"
                )
            return self._give_up(error)
        wanted = self._splice.restart_ms * SAMPLE_RATE // 1000
        base = self._kept.rewind(wanted)
        events: list[Event] = []
        away_s = time.monotonic() - self._lost_at
        lost = "nothing is lost"
        if base > wanted:  # what the last server has said is all there will be
            lost = f"{(base - wanted) / SAMPLE_RATE:.0f} s of sound are lost"
            events += self._last_words()
        self._is_cut = False
        self._cut.clear()
        self._splice.restart(_ms(base))
        self._begin(base)
        self.notify(f"the server is there again after {away_s:.0f} s; {lost}")
        self._send_sound()
        return events

    def _give_up(self, error: ServerError) -> list[Event]:
        self._error = error
        return self._last_words()

    def _last_words(self) -> list[Event]:
        """Return what the last server has said and what it had begun to say."""
        events = [event for message in self._cut for event in self._receive(message)]
        self._cut.clear()
        events += self._remote_events.flush()
        return [*self._splice.push(events), *self._splice.flush()]

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    # ---- Sound goes there.

    def _send_sound(self) -> None:
        for _ in range(_N_MESSAGES):
            if self._connection is None or not self._kept.n_unsent:
                return
            pcm = self._kept.take(_MESSAGE_SAMPLES)
            self._remote_events.push(pcm.astype(np.float32) / 32768)
            audio = base64.b64encode(pcm.tobytes()).decode()
            self._connection.send({"type": "input_audio_buffer.append", "audio": audio})
            if self._connection.error is not None:
                return

    # ---- Events come back.

    def _news(self, timeout_s: float) -> list[Event]:
        connection = self._connection
        if connection is None:
            return self._try_again(timeout_s)
        if not connection.inbox:
            connection.look(timeout_s)
        events: list[Event] = []
        while connection.inbox:
            message = connection.inbox.popleft()
            self._note_session(message)
            self._note_drafts(message)
            self._has_news = self._has_news or message.get("type") in _NEWS
            match message.get("type"):
                case "error":
                    connection.refuse(message)
                case "session.ending":
                    self._is_cut = self._reconnect_s > 0
                case "transcription.done" if self._is_cut or not self._is_ending:
                    connection.fail(
                        "has ended the stream; it may be shutting down", may_return=True
                    )
                case _ if self._is_cut:
                    self._cut.append(message)
                case _:
                    events += self._receive(message)
        events = self._splice.push(events)
        self._note_lag(events)
        drafts = [event for event in events if isinstance(event, DraftChanged)]
        self._draft = drafts[-1] if drafts else self._draft
        self._kept.forget(self._splice.restart_ms * SAMPLE_RATE // 1000)
        is_finished = any(isinstance(event, Finished) for event in events)
        if connection.error is not None and not is_finished:
            events += self._broken_off(connection)
        return events

    def _receive(self, message: Mapping[str, Any]) -> list[Event]:
        try:
            return self._remote_events.receive(message)
        except ServerError as error:
            if self._connection is not None:
                self._connection.fail(f"is not understood: {error}")
            return []

    def _note_session(self, message: Mapping[str, Any]) -> None:
        """Our server says which delay a stream has, and how far it lags."""
        if self.delay_ms is None and (session := fields_of(message.get("session"))):
            delay_ms = session.get("delay_ms")
            self.delay_ms = delay_ms if isinstance(delay_ms, int) else None
        lag_ms = message.get("lag_ms")
        if isinstance(lag_ms, int | float) and self._metrics is not None:
            heard_ms = self._base_ms + self._remote_events.duration_ms
            self._splice.silent_until(int(heard_ms - lag_ms) - _LAG_MARGIN_MS)

    def _note_drafts(self, message: Mapping[str, Any]) -> None:
        """Our server shows the draft's delay before any text; others know no drafts."""
        if not self._misses_drafts:
            return
        if "draft_delay_ms" in fields_of(message.get("session")):
            self._misses_drafts = False
        elif str(message.get("type")).startswith("transcription."):
            self._misses_drafts = False
            self.notify("this server sends no drafts; only text that stays is shown")

    def _note_lag(self, events: Sequence[Event]) -> None:
        texts = [event for event in events if isinstance(event, TextDelta)]
        if self._metrics is None or not texts:
            return
        needed_ms = texts[-1].time_ms + (self.delay_ms or DEFAULT_DELAY_MS)
        while len(self._sent) > 1 and self._sent[0][0] < needed_ms:
            self._sent.popleft()
        if self._sent and self._sent[0][0] >= needed_ms:
            self._metrics.lagged(time.monotonic() - self._sent[0][1])


# Messages of a server that has heard something. A connection that brings none of them
# and does not last is no success.
_NEWS = {"transcription.delta", "transcription.word", "session.lag"}
_STEADY_S = 30.0


def _ms(n_samples: int) -> int:
    return n_samples * 1000 // SAMPLE_RATE
