"""Many sessions on one network, stepped together: weights are read once for all.

A session says as a generator (`Session.work`) what it wants of the network. A row of a
batch is a session and where its generator stands:

    idle       no generator: the session waits for a whole audio token
    encoding   it wants sound encoded: up to `max_tokens` audio tokens
    decoding   it wants ids, for one pass or more

A step does the following, so a row may go through all states in one step:

    idle      -> encoding   if `session.work` has something to do
    encoding  -> decoding   all rows that encode do so in one call
    decoding  -> decoding   one pass for all rows; this one has not ended its request
    decoding  -> decoding   it has, and wants another: that waits for the next step
    any       -> idle       the generator ends, with the events that became certain

Example: A has one audio token, B a backlog of 8 and C a trial to compare over 5
positions. One call encodes 1 + 8 tokens. The pass decodes one position of A, one of B and
one of C. A is idle again with its event. B and C go on in the next 7 and 4 steps, with
A beside them whenever it has sound.

Invariants: a session's events are those it has alone; no row waits for another; at the
end of a step no row is encoding that could have been encoded in it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from voxmlx.decoding.loop import decode_together
from voxmlx.decoding.network_requests import (
    DecodeRequest,
    DecodeTogether,
    EncodeRequest,
    Request,
)
from voxmlx.events import Event
from voxmlx.model.voxtral import VoxtralRealtime
from voxmlx.session import Session, Work

__all__ = ["MAX_TOKENS_PER_STEP", "Batch"]

# A session far behind is encoded in pieces of 0.64 s, so that those that are not
# wait no longer than that takes.
MAX_TOKENS_PER_STEP = 8


@dataclass(slots=True)
class _Row:
    session: Session
    work: Work | None = None
    wanted: Request | None = None


class Batch:
    """Sessions that come and go, each exactly what it is alone.

    Sound goes to a session's `timeline` (`push`, `flush`, `end`); every `step` then
    takes all sessions with a whole audio token ready one id further, in one pass.
    A session has its own rings, delay, guards and hot words, whatever the others
    have; its id comes a step later where it has to wait for nobody else.
    From one thread, like a session.
    """

    def __init__(self, model: VoxtralRealtime) -> None:
        self._model = model
        self._rows: dict[Session, _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def n_due(self) -> int:
        """Sessions that the next step would take further."""
        return sum(map(self.is_due, self._rows))

    def is_due(self, session: Session) -> bool:
        """Return whether the next step would advance `session`, which is in the batch."""
        return self._rows[session].work is not None or session.is_due

    def add(self, session: Session) -> None:
        """Step `session` too, from now on."""
        self._rows[session] = _Row(session)

    def remove(self, session: Session) -> None:
        """Leave `session` alone, wherever it is; what it was about is lost."""
        self._rows.pop(session, None)

    def step(
        self,
        sessions: Iterable[Session] | None = None,
        *,
        max_tokens: int = MAX_TOKENS_PER_STEP,
    ) -> list[tuple[Session, list[Event]]]:
        """Return every session that something became certain of, and what that is.

        Take only `sessions` further if they are given, else all. Encode at most
        `max_tokens` audio tokens of each. A session that has finished is removed.
        """
        said: list[tuple[Session, list[Event]]] = []
        rows = list(self._rows.values())
        if sessions is not None:
            rows = [self._rows[session] for session in sessions]
        for row in rows:
            if row.work is None:
                row.work = row.session.work(max_tokens)
                if row.work is not None:
                    self._resume(row, None, said)
        self._encode(rows, said)
        self._decode(rows, said)
        for session in [session for session, _ in said if session.is_finished]:
            self.remove(session)
        return said

    def _encode(
        self, rows: Sequence[_Row], said: list[tuple[Session, list[Event]]]
    ) -> None:
        waiting: list[tuple[_Row, EncodeRequest]] = []
        for row in rows:
            if isinstance(row.wanted, EncodeRequest):
                waiting.append((row, row.wanted))
        if not waiting:
            return
        audio = self._model.encode_together(
            [encoding.samples for _, encoding in waiting],
            [encoding.state for _, encoding in waiting],
        )
        for (row, _), embeddings in zip(waiting, audio, strict=True):
            self._resume(row, embeddings, said)

    def _decode(
        self, rows: Sequence[_Row], said: list[tuple[Session, list[Event]]]
    ) -> None:
        waiting = [
            row
            for row in rows
            if isinstance(row.wanted, DecodeRequest | DecodeTogether)
        ]
        if not waiting:
            return
        requests: list[DecodeRequest] = []
        for row in waiting:
            if isinstance(row.wanted, DecodeRequest):
                requests.append(row.wanted)
            elif isinstance(row.wanted, DecodeTogether):
                requests += row.wanted.waiting
        decode_together(self._model, requests)
        for row in waiting:
            match row.wanted:
                case DecodeRequest() as request if request.is_done:
                    self._resume(row, request.ids().tolist(), said)
                case DecodeTogether(parts) if any(part.is_done for part in parts):
                    self._resume(row, None, said)
                case _:
                    pass

    def _resume(
        self, row: _Row, answer: Any, said: list[tuple[Session, list[Event]]]
    ) -> None:
        """Give a session what it wanted; note what it wants or says now."""
        assert row.work is not None
        try:
            row.wanted = row.work.send(answer)
        except StopIteration as end:
            row.work = row.wanted = None
            events: Sequence[Event] = end.value
            if events:
                said.append((row.session, list(events)))
