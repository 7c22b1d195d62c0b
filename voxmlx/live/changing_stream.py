"""A stream whose delay may change while it runs.

A session has one delay for its life. So another session goes on, in a pause of the
speaker, and hears again what nobody has spoken in.

States: STEADY, one session is heard. WAITING, a delay is wanted and a session for it is
there, but words are being spoken. With the end of the utterance, or at once where
nobody speaks, the other session takes over:

  STEADY --change_delay--> WAITING --UtteranceEnd, or nobody speaks--> STEADY

The other session begins in the middle of that pause, or 2 s before the last id, if that
is later. All words before are final, and what the first session has said after the
pause is dropped: the sound of it is heard again. So no word is lost or doubled, and
stream time goes on.

Example: at delay 480, a word ends at 4.0 s, and the utterance is known to be over at
4.8 s, when 5.3 s are heard. The other session hears again from 4.4 s.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from voxmlx.errors import SessionError
from voxmlx.events import (
    DraftChanged,
    Event,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    WordFinal,
)
from voxmlx.live.restart_sound import RestartSound
from voxmlx.live.splice import Splice
from voxmlx.session import Session

__all__ = ["ChangingStream"]


class ChangingStream:
    """A session of one timeline, and another after it when the delay changes."""

    def __init__(
        self, session: Session, open_session: Callable[[int], Session]
    ) -> None:
        """`open_session` opens a session of another delay, else like the first."""
        self._session = session
        self._open_session = open_session
        self._next: Session | None = None
        self._splice = Splice()
        self._sound = RestartSound()
        self._pending: list[Event] = []
        self._is_replaying = False
        self._token_ms = 0  # stream time of the last id
        self._base_ms = 0  # where the session has begun
        self._is_speaking = False
        self._draft = ""

    @property
    def delay_ms(self) -> int:
        return self._session.delay_ms

    @property
    def is_changing(self) -> bool:
        """Return whether another delay waits for a pause of the speaker."""
        return self._next is not None

    @property
    def n_kept(self) -> int:
        """Return how many samples are kept, as they may be heard again."""
        return self._sound.n_kept

    @property
    def samples_wanted(self) -> int:
        """Samples to push until there is something to decode or to say."""
        return 0 if self._pending else self._session.samples_wanted

    def change_delay(self, delay_ms: int) -> None:
        """Have text lag by `delay_ms`, from the next pause on; the last call counts.

        Raises DelayError or SessionError for a delay that the stream cannot have.
        """
        is_other = delay_ms != self.delay_ms
        self._next = self._open_session(delay_ms) if is_other else None
        self._take_over()

    def push(self, samples: np.ndarray, /) -> list[Event]:
        """Hear sound; return what became certain."""
        pending, self._pending = self._pending, []
        self._sound.push(samples)
        return pending + self._passed(self._session.push(samples))

    def replay_pieces(
        self,
        pieces: Iterable[np.ndarray],
        n_samples: int,
        tokens: Sequence[TokenDecoded],
    ) -> Iterator[list[Event]]:
        """Do as the first session's `replay_pieces`."""
        if self._base_ms:
            raise SessionError("replay after a change of delay; replay first")
        self._is_replaying = True
        for events in self._session.replay_pieces(
            self._noted(pieces), n_samples, tokens
        ):
            yield self._passed(events)
        self._is_replaying = False
        self._take_over()

    def finish(self) -> list[Event]:
        """End the stream; return its last events."""
        self._next = None
        events = self._pending + self._passed(self._session.finish())
        self._pending = []
        return events + self._splice.flush()

    def _noted(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for piece in pieces:
            self._sound.push(piece.astype(np.float32) / np.float32(32768))
            yield piece

    def _passed(self, events: Sequence[Event]) -> list[Event]:
        """Events for the timeline, up to where the other session takes over."""
        for i, event in enumerate(events):
            self._observe(event)
            if isinstance(event, UtteranceEnd) and self._may_take_over():
                passed = self._splice.push(events[: i + 1])
                self._take_over()
                return passed
        return self._splice.push(events)

    def _observe(self, event: Event) -> None:
        match event:
            case TokenDecoded(time_ms=time_ms):
                self._token_ms = max(self._token_ms, self._base_ms + time_ms)
                self._sound.decoded(self._token_ms)
            case TextDelta() | WordFinal():
                self._is_speaking = True
            case UtteranceEnd(end_ms=end_ms, time_ms=time_ms):
                self._is_speaking = False
                self._sound.paused(self._base_ms + end_ms, self._base_ms + time_ms)
            case DraftChanged(text):
                self._draft = text
            case _:
                pass

    def _may_take_over(self) -> bool:
        is_silent = not self._is_speaking and not self._is_replaying
        return self._next is not None and is_silent

    def _take_over(self) -> None:
        """Have the other session go on, if there is one and nobody is speaking."""
        if self._next is None or not self._may_take_over():
            return
        self._session, self._next = self._next, None
        self._sound.rewind()
        self._base_ms = self._sound.start_ms
        self._splice.restart(self._base_ms)
        if self._draft:  # of words that may have been none
            self._pending.append(DraftChanged("", self._token_ms))
            self._draft = ""
        self._pending += self._passed(self._session.push(self._sound.take()))
