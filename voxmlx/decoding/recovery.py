"""Goes on decoding where numbers of the network are not finite.

Half precision can overflow: one infinity in a ring makes every later logit NaN, for
ever. `DecodeRequest` sees that in the id it reads. `RecoveringDecoder` then goes on from
a new state, within the same step. Other streams of a batch notice nothing.

States of a position, in this order:

    open      heard, without an id that is certain
    closed    its id is certain and was given out; no recovery changes it

A recovery makes these attempts. The next one follows if ids are still not finite:

    1. A new decoder's state hears the last 15 s again. The ids of closed positions
       are given to it, so it knows the text. Open positions are decoded as usual.
       The encoder's state is kept if it is finite. If not, a new one hears the sound.
    2. The same without closed positions: what they hold may be the cause.
    3. The open positions become blanks, and the next sound meets a new state.

Example, a delay of 6 tokens: the ring of layer 3 overflows at position 500. Ids 313
to 499 are closed. A new state hears positions 313 to 499: the first 7 are its prompt,
the other 180 have known ids. All take six passes of 32 positions. Then position 500
is decoded, and its id carries `recovered="decoder"`.

Invariants: each position gets one id, in order; the id of a closed one never changes; a
recovery ends after at most three attempts; nothing here grows with the stream.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.config import SAMPLES_PER_AUDIO_TOKEN, STREAMING_PAD_ID
from voxmlx.decoding.decoded import NO_TOKEN, Decoded
from voxmlx.decoding.draft_decoder import DraftDecoder
from voxmlx.decoding.network_requests import (
    DecodeRequest,
    EncodeRequest,
    Requests,
    side_by_side,
)
from voxmlx.decoding.token_decoder import NotFiniteError, TokenDecoder
from voxmlx.kernels.evaluation import evaluate
from voxmlx.model.state import VoxtralState, all_finite

__all__ = ["HISTORY_TOKENS", "RecoveringDecoder"]

# What is kept of the past: as much as the encoder's window spans (15 s).
HISTORY_TOKENS = 187
# What is heard again is encoded in pieces of 0.64 s and decoded in passes of 2.56 s,
# so that other streams of a batch need not wait for all of it.
_ENCODED_TOKENS = 8
_DECODED_TOKENS = 32


@dataclass(slots=True)
class _Block:
    """Sound [k * 1280] of k positions, its embeddings [1, k, dim], and speech [k]."""

    samples: NDArray[np.float32]
    audio: mx.array
    speech: Sequence[bool]


class _History:
    """The last positions: up to HISTORY_TOKENS that are closed, then the open ones."""

    def __init__(self) -> None:
        self._blocks: deque[_Block] = deque()
        self.ids: deque[int] = deque()  # of closed positions
        self.n_open = 0

    def arrays(self) -> list[mx.array]:
        """All that is computed on the device."""
        return [block.audio for block in self._blocks]

    def add(self, block: _Block) -> None:
        self._blocks.append(block)
        self.n_open += len(block.speech)

    def close(self, token_id: int) -> None:
        """The first open position has this id, or NO_TOKEN."""
        self.ids.append(token_id)
        self.n_open -= 1
        while len(self.ids) - len(self._blocks[0].speech) >= HISTORY_TOKENS:
            for _ in self._blocks.popleft().speech:
                self.ids.popleft()

    def forget_closed(self) -> None:
        """Keep the open positions alone."""
        samples, audio, speech = self._all()
        n = len(self.ids)
        kept = _Block(samples[n * SAMPLES_PER_AUDIO_TOKEN :], audio[:, n:], speech[n:])
        evaluate(kept.audio)
        self._blocks = deque([kept] if self.n_open else [])
        self.ids.clear()

    def forget(self) -> None:
        self._blocks.clear()
        self.ids.clear()
        self.n_open = 0

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """The sound, as it is encoded again."""
        samples, _, _ = self._all()
        n = _ENCODED_TOKENS * SAMPLES_PER_AUDIO_TOKEN
        for start in range(0, len(samples), n):
            yield samples[start : start + n]

    def encoded(self, audio: Sequence[mx.array]) -> None:
        """Put the embeddings of `pieces` in the place of those there were."""
        _, _, speech = self._all()
        pieces = list(self.pieces())
        self._blocks.clear()
        for samples, embeddings in zip(pieces, audio, strict=True):
            n, speech_of_piece = embeddings.shape[1], speech
            speech = speech[n:]
            self._blocks.append(_Block(samples, embeddings, speech_of_piece[:n]))

    def positions(self) -> tuple[mx.array, list[bool]]:
        """Embeddings [1, n, dim] and speech [n] of all."""
        _, audio, speech = self._all()
        return audio, speech

    def _all(self) -> tuple[NDArray[np.float32], mx.array, list[bool]]:
        return (
            np.concatenate([block.samples for block in self._blocks]),
            mx.concatenate([block.audio for block in self._blocks], axis=1),
            [is_speech for block in self._blocks for is_speech in block.speech],
        )


class RecoveringDecoder:
    """One stream's sound -> its ids, whatever happens to its numbers."""

    def __init__(
        self,
        decoder: TokenDecoder,
        open_state: Callable[[], VoxtralState],
        draft: DraftDecoder | None = None,
    ) -> None:
        """`open_state` makes the state of a stream like this one at its beginning.

        `draft` decodes the same embeddings, in the same passes.
        """
        self._decoder = decoder
        self._open_state = open_state
        self._draft = draft
        self._n_heard = 0  # positions
        self._history = _History()
        # Positions of the stream's own prompt that are still to come: only they have
        # no id. What is inside the prompt of a later state has a blank.
        self._n_prompt = decoder.state.n_forced
        self._certain: list[Decoded] = []
        self._cause: str | None = None  # of a recovery that no id has told about

    def arrays(self) -> list[mx.array]:
        """All that is computed on the device."""
        return [*self._decoding_arrays(), *self._history.arrays()]

    def evaluate(self) -> None:
        """Leave nothing lazy. What the history holds was evaluated as it came."""
        evaluate(self._decoding_arrays())

    def _decoding_arrays(self) -> list[mx.array]:
        draft = [] if self._draft is None else self._draft.arrays()
        return self._decoder.arrays() + draft

    def step(
        self,
        samples: NDArray[np.float32],
        speech: Sequence[bool],
        *,
        is_quiet: bool = False,
    ) -> Requests:
        """Sound [k * 1280] of k whole audio tokens; then `take` what is certain.

        Where it `is_quiet`, PADs are guessed, and verified together.
        """
        audio = yield EncodeRequest(samples[None], self._decoder.state)
        self._history.add(_Block(samples, audio, speech))
        self._n_heard += len(speech)
        if self._draft is None:
            yield from self._decode(audio, speech, is_quiet)
        else:
            decoding = self._decode(audio, speech, is_quiet)
            draft = self._draft.step(audio, is_quiet=is_quiet)
            yield from side_by_side(decoding, draft)

    def _decode(
        self, audio: mx.array, speech: Sequence[bool], is_quiet: bool
    ) -> Requests:
        try:
            yield from self._decoder.step(audio, speech, is_quiet=is_quiet)
        except NotFiniteError:
            yield from self._recover()

    def skip(self, speech: Sequence[bool]) -> None:
        """Make certain what is known of positions that the network does not hear."""
        self._n_heard += len(speech)
        self._decoder.skip(speech)
        if self._draft is not None:
            self._draft.skip(len(speech))
        for one in self._decoder.take():
            self._keep(one)

    def finish(self) -> Requests:
        """Decode what was held back, as nothing follows it."""
        try:
            yield from self._decoder.finish()
        except NotFiniteError:
            yield from self._recover()
            try:
                yield from self._decoder.finish()
            except NotFiniteError:
                self._give_up()

    def take(self) -> list[Decoded]:
        """Return what became certain since the last call."""
        self._take_certain()
        certain, self._certain = self._certain, []
        return certain

    def _recover(self) -> Requests:
        self._take_certain()
        for n_attempts in range(2):
            if n_attempts:
                self._history.forget_closed()
            try:
                yield from self._replay()
            except NotFiniteError:
                self._take_certain()
            else:
                return
        self._give_up()

    def _replay(self) -> Requests:
        """Take a new state through all there is of the past."""
        history, old = self._history, self._decoder.state
        state = self._open_state()
        audio, speech = history.positions()
        is_sound = bool(np.isfinite(old.mel.pending).all())
        if is_sound and all_finite([*old.encoder_arrays(), audio]):
            cause = "decoder"
            state.mel, state.encoder = old.mel, old.encoder
        else:
            cause = "encoder"
            encoded: list[mx.array] = []
            for piece in history.pieces():
                encoded.append((yield EncodeRequest(piece[None], state)))
            history.encoded(encoded)
            audio, _ = history.positions()
        self._cause = self._cause or cause
        self._restart(state)
        known = list(history.ids)
        for start in range(0, len(known), _DECODED_TOKENS):
            ids = known[start : start + _DECODED_TOKENS]
            yield DecodeRequest(audio[:, start : start + len(ids)], state, known=ids)
        n = len(known)
        yield from self._decoder.step(audio[:, n:], speech[n:])

    def _give_up(self) -> None:
        """Make blanks of the open positions; what follows meets a new state."""
        self._take_certain()
        n_open = self._history.n_open
        self._restart(self._open_state())
        self._history.forget()
        for _ in range(n_open):
            self._keep(Decoded(NO_TOKEN, certain_at=self._n_heard))

    def _restart(self, state: VoxtralState) -> None:
        self._decoder.restart(state, self._n_heard - self._history.n_open)

    def _take_certain(self) -> None:
        for one in self._decoder.take():
            self._history.close(self._keep(one))

    def _keep(self, one: Decoded) -> int:
        """Add what is certain of the next position; its id, or NO_TOKEN."""
        if self._n_prompt:
            self._n_prompt -= 1
            return NO_TOKEN
        if one.token_id == NO_TOKEN:
            one = replace(one, token_id=STREAMING_PAD_ID)
        if self._cause is not None:
            one, self._cause = replace(one, recovered=self._cause), None
        self._certain.append(one)
        return one.token_id
