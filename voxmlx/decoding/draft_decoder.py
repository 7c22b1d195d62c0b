"""Ids at a shorter delay, beside those that stand.

The encoder does not see the delay. So a second decoder row takes the same embeddings, in
the same passes, and gives each id sooner. What it says may still change: only the ids of
the stream's own delay stand.

Example, delays of 960 and 160 ms: the stream has heard 20 audio tokens since its prompt
began to speak. The ids that stand reach 7 of them, the draft reaches 17. Both rows take
position 21 in one pass, which reads the weights once.

Invariants: one id per position, NO_TOKEN inside a prompt; ids are those of a stream of
its own with the draft's delay and window; the ids that stand do not depend on them. Where
its numbers are not finite, it begins anew.
"""

from collections.abc import Callable

import mlx.core as mx

from voxmlx.decoding.decoded import NO_TOKEN, NOT_FINITE
from voxmlx.decoding.network_requests import DecodeRequest, Requests
from voxmlx.decoding.pad_guesses import PadGuesses
from voxmlx.decoding.speculation import Speculation
from voxmlx.model.state import VoxtralState

__all__ = ["DraftDecoder"]


class DraftDecoder:
    """The greedy ids of one stream at another delay, from embeddings that it is given."""

    def __init__(
        self,
        open_state: Callable[[], VoxtralState],
        speculation: Speculation | None = None,
    ) -> None:
        """`open_state` makes a state at the draft's delay; its encoder is not used.

        `speculation` guesses at ids of a backlog, for the draft alone.
        """
        self._open_state = open_state
        self._speculation = speculation
        self._pads = PadGuesses(speculation)
        self._state = open_state()
        self._ids: list[int] = []

    def arrays(self) -> list[mx.array]:
        """Return all arrays that are computed on the device."""
        return [*self._state.decoder.arrays(), self._state.token]

    def step(self, audio: mx.array, *, is_quiet: bool = False) -> Requests:
        """Decode audio embeddings [1, k, dim]; then `take` the ids.

        Where it `is_quiet`, PADs are guessed, and verified together.
        """
        guesses = self._pads if is_quiet else self._speculation
        while audio.shape[1]:
            ids: list[int] = yield DecodeRequest(
                audio, self._state, speculation=guesses
            )
            n_finite = ids.index(NOT_FINITE) if NOT_FINITE in ids else len(ids)
            self._ids += ids[:n_finite]
            audio = audio[:, n_finite + 1 :]
            if n_finite < len(ids):
                self._restart()
                self._ids.append(NO_TOKEN)

    def skip(self, n: int) -> None:
        """Give no ids for n positions that the network does not hear."""
        self._ids += [NO_TOKEN] * n

    def take(self) -> list[int]:
        """Return the ids since the last call, one for each position."""
        ids, self._ids = self._ids, []
        return ids

    def _restart(self) -> None:
        self._state = self._open_state()
