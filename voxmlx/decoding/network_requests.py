"""Requests of a stream to the network, whoever drives it."""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.config import STREAMING_PAD_ID
from voxmlx.decoding.choosing import Choose, doubtful, logits_of
from voxmlx.decoding.decoded import NO_TOKEN, NOT_FINITE
from voxmlx.decoding.speculation import Guesses
from voxmlx.kernels import positions
from voxmlx.model.state import VoxtralState

__all__ = [
    "DecodeRequest",
    "DecodeTogether",
    "EncodeRequest",
    "Request",
    "Requests",
    "side_by_side",
]


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """Samples [1, n] of one stream, to become audio embeddings."""

    samples: NDArray[np.float32]
    state: VoxtralState


@dataclass(slots=True)
class DecodeRequest:
    """Audio embeddings [1, k, dim] of one stream on their way to ids [k].

    With `speculation`, a pass may take more than the one position whose input is
    known: guesses stand for the ids in between, and those after the first that
    turns out wrong are trimmed. Such a pass waits for its ids; where no guess
    seems worth it, a run of single positions is queued before any is read. The last
    position is read with `ids`, since nothing is left to guess.

    `known` are ids that stand already, of the first positions: they are not chosen
    again, only given to the decoder. Inside a prompt, what it has comes first.

    Where logits are not finite the id is NOT_FINITE, and nothing after it counts. To
    know that costs no launch: the logit of each id is read with it, and where one
    logit is NaN or infinite, so is that of the best id.
    """

    audio: mx.array
    state: VoxtralState
    choose: Choose | None = None
    speculation: Guesses | None = None
    known: Sequence[int] = ()
    n_done: int = 0
    _chosen: list["list[int] | _Unread"] = field(
        default_factory=list["list[int] | _Unread"]
    )
    _guessed: list[int] = field(default_factory=list[int])
    _unread: list["_Unread"] = field(default_factory=list["_Unread"])
    _is_doubtful: bool = False
    _began: float | None = None

    @property
    def is_done(self) -> bool:
        return self.n_done == self.audio.shape[1]

    @property
    def needs_greedy(self) -> bool:
        return self.choose is None or bool(self._guessed)

    def next_inputs(self) -> tuple[mx.array, mx.array]:
        """Embeddings [1, n, dim] and tokens [1, n] of the positions to take next."""
        n_left = self.audio.shape[1] - self.n_done
        outcomes = self._outcomes()
        following = outcomes[: n_left - 1]
        if self.speculation is not None and not outcomes:
            if not self._unread:
                self._begin_pass(self.speculation, n_left - 1)
            following = self._guessed
        tokens = self.state.token
        if following:
            tokens = mx.concatenate([tokens, mx.array([following], mx.int32)], axis=1)
        n = 1 + len(following)
        return positions(self.audio, self.n_done, self.n_done + n), tokens

    def _outcomes(self) -> list[int]:
        """Of the positions to come, what is certain without the network."""
        n_forced = self.state.n_forced
        known = self.known[self.n_done + n_forced :]
        outcomes = [STREAMING_PAD_ID] * n_forced + list(known)
        return outcomes[: self.audio.shape[1] - self.n_done]

    def _begin_pass(self, speculation: Guesses, n: int) -> None:
        # The first pass may still wait for its audio, and says nothing of others.
        self._began = speculation.now() if self.n_done else None
        self._guessed = [] if self._is_doubtful else speculation.guess(n)
        self._is_doubtful = False

    def takes(self, n: int) -> int:
        """Count n positions as done; how many of them, the last, choose an id."""
        state = self.state
        certain = self._outcomes()[:n]
        n_forced = min(len(certain), state.n_forced)
        if certain:
            self._chosen.append([NO_TOKEN] * n_forced + certain[n_forced:])
        if len(certain) == n:
            state.token = mx.full((1, 1), certain[-1], mx.int32)
        state.n_forced -= n_forced
        self.n_done += n
        return n - len(certain)

    def receive_logits(
        self, logits: mx.array, best: mx.array | None, leading: mx.array | None
    ) -> mx.array:
        """Choose after logits [n, vocab]; `best` [n] are their `greedy` ids, `leading`
        [n] the logits of those.

        Returns what is to be computed besides the state.
        """
        if self._guessed:
            assert self.speculation is not None
            assert best is not None
            assert leading is not None
            self._accept_right_ones(self.speculation, logits, best, leading)
            return leading
        assert logits.shape[0] == 1
        if self.choose is not None:
            best = self.choose(logits)
            leading = logits_of(best, logits)
        assert best is not None
        assert leading is not None
        chosen = _Unread(best, leading)
        self.state.token = best[:, None]
        self._chosen.append(chosen)
        if self.speculation is not None:
            self._unread.append(chosen)
            if not self.is_done and len(self._unread) >= self.speculation.n_unread:
                self._read(self.speculation)
        return leading

    def _accept_right_ones(
        self,
        speculation: Guesses,
        logits: mx.array,
        best: mx.array,
        leading: mx.array,
    ) -> None:
        n = logits.shape[0]
        ids = self._verified(logits, _Unread(best, leading))
        self.state.decoder.cache.trim(n - len(ids))
        self.n_done -= n - len(ids)
        self._is_doubtful = not ids
        self._guessed = []
        if ids:
            self.state.token = mx.array([ids[-1:]], mx.int32)
            self._chosen.append(ids)
        speculation.observe(ids)
        speculation.passed(n, len(ids), self._seconds(speculation))

    def _read(self, speculation: Guesses) -> None:
        """Tell `speculation` what a run of single positions gave, and took."""
        ids = [token_id for unread in self._unread for token_id in unread.read()]
        self._unread = []
        n_finite = ids.index(NOT_FINITE) if NOT_FINITE in ids else len(ids)
        speculation.observe(ids[:n_finite])
        seconds = self._seconds(speculation)
        for _ in ids:
            speculation.passed(1, 1, seconds and seconds / len(ids))

    def _seconds(self, speculation: Guesses) -> float | None:
        now = speculation.now()
        return None if self._began is None or now is None else now - self._began

    def _verified(self, logits: mx.array, best: "_Unread") -> list[int]:
        """The ids up to the first that no guess was right about.

        A pass over several positions rounds otherwise than one over each would:
        where that might decide, the position is left to a pass of its own.
        """
        n = logits.shape[0]
        is_doubtful: Any = doubtful(logits, best.ids).tolist()
        ids: list[int] = []
        for i, token_id in enumerate(best.read()):
            if is_doubtful[i] or token_id == NOT_FINITE:
                break
            if self.choose is not None:
                chosen: Any = self.choose(logits[i : i + 1]).item()
                token_id = chosen
            ids.append(token_id)
            if token_id != (self._guessed[i] if i < n - 1 else None):
                break
        return ids

    def ids(self) -> NDArray[np.int32]:
        """Ids [k], one per audio token; waits until they are computed."""
        if self.speculation is not None and self._unread:
            self._read(self.speculation)
        ids = [
            token_id
            for part in self._chosen
            for token_id in (part if isinstance(part, list) else part.read())
        ]
        return np.array(ids, np.int32)


@dataclass(frozen=True, slots=True)
class _Unread:
    """Ids [n] on their way from the device, each with its logit."""

    ids: mx.array
    leading: mx.array

    def read(self) -> list[int]:
        """The ids; NOT_FINITE where one's logit is no number. Waits for them."""
        ids: Any = self.ids.tolist()
        leading: Any = self.leading.tolist()
        return [
            token_id if math.isfinite(logit) else NOT_FINITE
            for token_id, logit in zip(ids, leading, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class DecodeTogether:
    """Decode requests of one stream that take their positions in the same passes.

    Its driver answers as soon as one of them is done; the others stay as far as they are.
    """

    requests: tuple[DecodeRequest, ...]

    @property
    def waiting(self) -> list[DecodeRequest]:
        """Return the requests that another pass takes further."""
        return [request for request in self.requests if not request.is_done]


# A stream yields requests, and is sent embeddings [1, k, dim] for an EncodeRequest, ids [k]
# for a DecodeRequest, nothing for a DecodeTogether, whose requests hold their ids. A
# generator, so that its driver may serve many streams in one pass.
Request = EncodeRequest | DecodeRequest | DecodeTogether
Requests = Generator[Request, Any, None]


def side_by_side(first: Requests, second: Requests) -> Requests:
    """Run two generators so that what both want decoded takes the same passes.

    Example: one wants a position decoded with hot words, then again without; the
    other wants one position. The first pass takes a position of each, the second
    only the first one's.
    """
    running: dict[Requests, Request] = {}
    for one in (first, second):
        _resume(running, one, None)
    while running:
        encoding = next(
            (one for one in running if isinstance(running[one], EncodeRequest)), None
        )
        if encoding is not None:
            answer = yield running[encoding]
            _resume(running, encoding, answer)
            continue
        decoding = {
            one: request
            for one, request in running.items()
            if isinstance(request, DecodeRequest)
        }
        yield DecodeTogether(tuple(decoding.values()))
        for one, request in decoding.items():
            if request.is_done:
                _resume(running, one, request.ids().tolist())


def _resume(running: dict[Requests, Request], one: Requests, answer: Any) -> None:
    """Give a generator what it wanted; note what it wants now, or that it has ended."""
    try:
        running[one] = one.send(answer)
    except StopIteration:
        running.pop(one, None)
