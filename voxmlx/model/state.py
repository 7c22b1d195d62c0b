"""State of one stream, from its last samples to its last id."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from voxmlx.kernels.evaluation import evaluate
from voxmlx.model.decoder import DecoderState
from voxmlx.model.encoder import EncoderState
from voxmlx.model.mel import LogMelState

__all__ = ["VoxtralState", "all_finite"]


@dataclass(slots=True)
class VoxtralState:
    """Everything that the network remembers of one stream."""

    mel: LogMelState
    encoder: EncoderState
    decoder: DecoderState
    token: mx.array  # [1, 1], input of the next position
    n_forced: int  # prompt tokens after `token`

    def copy(self, decoder_step: int | None = None) -> "VoxtralState":
        """An independent stream that goes on from here.

        `decoder_step` makes room for decoder steps of so many positions; see
        `RingKVCache.copy`.
        """
        return VoxtralState(
            self.mel.copy(),
            self.encoder.copy(),
            self.decoder.copy(decoder_step),
            self.token,
            self.n_forced,
        )

    def packed(self) -> "VoxtralState":
        """A copy in little memory, computed; see `RingKVCache.packed`."""
        state = self.copy()
        state.encoder.cache = state.encoder.cache.packed()
        state.decoder.cache = state.decoder.cache.packed()
        evaluate(state.arrays())
        return state

    def arrays(self) -> list[mx.array]:
        """Return all arrays that are computed on the device."""
        return [*self.encoder_arrays(), *self.decoder.arrays(), self.token]

    def encoder_arrays(self) -> list[mx.array]:
        """Return those of the encoder."""
        encoder, stem = self.encoder, self.encoder.stem
        pending = [stem.conv1.pending, stem.conv2.pending, encoder.pending]
        return [*pending, *encoder.cache.arrays()]


def all_finite(arrays: Sequence[mx.array]) -> bool:
    """Return whether no array holds an infinity or a NaN; waits for them."""
    return bool(mx.stack([mx.isfinite(array).all() for array in arrays]).all())
