"""State of one stream, from its last samples to its last id."""

from dataclasses import dataclass

import mlx.core as mx

from voxmlx.model.decoder import DecoderState
from voxmlx.model.encoder import EncoderState
from voxmlx.model.mel import LogMelState

__all__ = ["VoxtralState"]


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
        mx.eval(state.arrays())
        return state

    def arrays(self) -> list[mx.array]:
        """Return all arrays that are computed on the device."""
        encoder, decoder = self.encoder, self.decoder
        stem = encoder.stem
        pending = [stem.conv1.pending, stem.conv2.pending]
        rings = [*encoder.cache.arrays(), *decoder.cache.arrays()]
        return [*pending, encoder.pending, *rings, decoder.mlp_norms, self.token]
