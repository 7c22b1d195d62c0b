"""The whole network: sound -> audio embeddings; these and ids -> logits."""

# pyright: standard
# mlx.nn has no types.

from collections.abc import Generator, Iterator, Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from voxmlx.config import (
    BOS_ID,
    DEFAULT_DELAY_MS,
    LEFT_PAD_TOKENS,
    SAMPLES_PER_AUDIO_TOKEN,
    STREAMING_PAD_ID,
    ModelConfig,
    delay_tokens,
)
from voxmlx.kernels import add, self_check
from voxmlx.model.adapter import Adapter
from voxmlx.model.decoder import Decoder
from voxmlx.model.encoder import Encoder
from voxmlx.model.mel import LogMel
from voxmlx.model.stacking import concat_positions, split
from voxmlx.model.state import VoxtralState, all_finite

__all__ = ["Samples", "VoxtralRealtime"]

# Positions of the silence before a stream that are decoded in one pass.
_PREPARED_TOKENS = 8

# Of one stream, [1, n] float32; the host computes with them first.
Samples = NDArray[np.float32] | mx.array


class VoxtralRealtime(nn.Module):
    """Weights of Voxtral Realtime; every stream's memory is in its state."""

    def __init__(
        self, config: ModelConfig, *, left_pad_tokens: int = LEFT_PAD_TOKENS
    ) -> None:
        """Build for `config`; every stream begins with `left_pad_tokens` of silence."""
        super().__init__()
        self.config = config
        self.left_pad_tokens = left_pad_tokens
        group = config.downsample_factor
        self.mel = LogMel(config.audio)
        self.encoder = Encoder(config.encoder, config.audio.num_mel_bins, group)
        self.adapter = Adapter(config.encoder.dim, config.decoder.dim, group)
        self.decoder = Decoder(config.decoder)
        # Constants of the weights; not parameters, hence the names. The encoder does
        # not see the delay, so its part is the same for all: embeddings and state.
        self._silence: tuple[mx.array, VoxtralState] | None = None
        # By delay tokens, bits of a ring and window.
        self._after_silence: dict[tuple[int, int, int], VoxtralState] = {}

    @property
    def n_silent_samples(self) -> int:
        """Return the samples of silence that a stream of `open_state` has passed.

        One audio token short of the left padding, but for what the last mel frame
        needs beyond it: that one hears the beginning of the sound as well.
        """
        return (self.left_pad_tokens - 1) * SAMPLES_PER_AUDIO_TOKEN + self.mel.lookahead

    def open_state(
        self,
        delay_ms: int = DEFAULT_DELAY_MS,
        *,
        kv_bits: int = 16,
        n_trimmable: int = 0,
        window: int | None = None,
    ) -> VoxtralState:
        """A stream that has heard `n_silent_samples`; computed once per kind.

        `kv_bits`, one of KV_BITS, is how the decoder's rings keep their numbers. The
        last `n_trimmable` positions can be taken back. A `window` shorter than the
        decoder's own is that many positions. Raises DelayError for a delay the model
        was not trained for.
        """
        for _ in self.prepare(delay_ms, kv_bits=kv_bits, window=window):
            pass
        kind = self._kind(delay_ms, kv_bits, window)
        return self._after_silence[kind].copy(n_trimmable + 1)

    def prepare(
        self, delay_ms: int, *, kv_bits: int = 16, window: int | None = None
    ) -> Iterator[None]:
        """Compute what `open_state` copies, in passes of a few positions each.

        Somebody who has other work to do does it between two passes. Where all is
        computed already, there is none. Raises DelayError.
        """
        kind = self._kind(delay_ms, kv_bits, window)
        if kind in self._after_silence:
            return
        self_check(self.config, self.decoder.dtype, kv_bits)
        state = yield from self._after_prompt(delay_ms, kv_bits, window)
        if not all_finite(state.arrays()):
            # Once more, or every later stream would begin with it.
            self._silence = None
            state = yield from self._after_prompt(delay_ms, kv_bits, window)
        self._after_silence[kind] = state.packed()

    def _kind(
        self, delay_ms: int, kv_bits: int, window: int | None
    ) -> tuple[int, int, int]:
        own = self.config.decoder.sliding_window
        return delay_tokens(delay_ms), kv_bits, min(window or own, own)

    def _after_prompt(
        self, delay_ms: int, kv_bits: int, window: int | None
    ) -> Generator[None, None, VoxtralState]:
        """Take a new state through the silence; see `prepare`."""
        state = self.make_state(delay_ms, kv_bits=kv_bits, window=window)
        if self._silence is None:
            audio = self.encode(np.zeros((1, self.n_silent_samples), np.float32), state)
            mx.eval(audio)
            encoded = state.packed()
            self._silence = audio, encoded
            yield
        audio, encoded = self._silence
        state.mel, state.encoder = encoded.mel.copy(), encoded.encoder.copy()
        for start in range(0, audio.shape[1], _PREPARED_TOKENS):
            self._step_prompt(audio[:, start : start + _PREPARED_TOKENS], state)
            yield
        return state

    def _step_prompt(self, audio: mx.array, state: VoxtralState) -> None:
        """Take a state through positions [1, n, dim] whose next ids are all forced."""
        n = audio.shape[1]
        pads = mx.full((1, n), STREAMING_PAD_ID, mx.int32)
        tokens = mx.concatenate([state.token, pads[:, 1:]], axis=1)
        self.logits_together([audio], [tokens], [state], [0])
        state.token = pads[:, :1]
        state.n_forced -= n
        mx.eval(state.decoder.cache.rings, state.token)

    def is_prepared(
        self, delay_ms: int, *, kv_bits: int = 16, window: int | None = None
    ) -> bool:
        """Return whether `open_state` copies at once. Raises DelayError."""
        return self._kind(delay_ms, kv_bits, window) in self._after_silence

    def make_state(
        self,
        delay_ms: int = DEFAULT_DELAY_MS,
        *,
        position: int = 0,
        kv_bits: int = 16,
        window: int | None = None,
    ) -> VoxtralState:
        """A fresh stream, about to hear its prompt.

        The stream begins with `left_pad_tokens` of silence, as the model was trained;
        its owner feeds them first (see `Session`). `position` is
        where the decoder's rotary counter starts (the encoder's at four times it).
        Raises DelayError for a delay the model was not trained for.
        """
        n_delay = delay_tokens(delay_ms)
        return VoxtralState(
            mel=self.mel.make_state(),
            encoder=self.encoder.make_state(position=position * self.encoder.group),
            decoder=self.decoder.make_state(
                [n_delay], position, kv_bits=kv_bits, window=window
            ),
            token=mx.full((1, 1), BOS_ID, mx.int32),
            n_forced=self.left_pad_tokens + n_delay,
        )

    def encode(self, samples: Samples, state: VoxtralState) -> mx.array:
        """Samples [1, n] -> audio embeddings [1, k, dim] of the tokens now whole."""
        return self.encode_together([samples], [state])[0]

    def encode_together(
        self, samples: Sequence[Samples], states: Sequence[VoxtralState]
    ) -> list[mx.array]:
        """Return for each stream what `encode` returns; weights are read once for all."""
        mel_frames = self.mel.step_together(
            samples, [s.mel for s in states], self.encoder.dtype
        )
        frames = self.encoder.step_together(mel_frames, [s.encoder for s in states])
        sizes = [x.shape[1] // self.adapter.group for x in frames]
        audio = split(self.adapter(concat_positions(frames)), sizes)
        # What waits for the next step must not hold on to this step's graph.
        for state in states:
            stem = state.encoder.stem
            mx.async_eval(
                stem.conv1.pending,
                stem.conv2.pending,
                state.encoder.pending,
            )
        mx.async_eval(audio)
        return audio

    def logits_together(
        self,
        audio: Sequence[mx.array],
        tokens: Sequence[mx.array],
        states: Sequence[VoxtralState],
        n_logits: Sequence[int],
    ) -> mx.array | None:
        """Step each stream's decoder by its own positions; weights are read once for all.

        The input of a position is its embedding of `audio` [1, n, dim] and the id
        before it, of `tokens` [1, n]; n is at least 1. Returns logits [R, vocab] of each
        stream's last `n_logits` positions, in order; None if that is none at all.
        """
        sizes = [part.shape[1] for part in tokens]
        embedded = split(self.decoder.embed(concat_positions(tokens)), sizes)
        embeddings = [add(a, x) for a, x in zip(audio, embedded, strict=True)]
        return self.decoder.step_together(
            embeddings, [state.decoder for state in states], n_logits
        )
