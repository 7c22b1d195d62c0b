"""The whole network, driven by sound: samples in, one token id per 80 ms out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from voxmlx.config import (
    BOS_ID,
    EOS_ID,
    LEFT_PAD_TOKENS,
    SAMPLES_PER_AUDIO_TOKEN,
    STREAMING_PAD_ID,
    ModelConfig,
    delay_tokens,
)
from voxmlx.model.adapter import Adapter
from voxmlx.model.decoder import Decoder, DecoderState
from voxmlx.model.encoder import Encoder, EncoderState
from voxmlx.model.mel import LogMel, LogMelState

__all__ = [
    "MAX_AUDIO_TOKENS_PER_STEP",
    "NO_TOKEN",
    "Choose",
    "VoxtralRealtime",
    "VoxtralState",
    "greedy",
]

# Stands in `step`'s result where a row is still inside its prompt.
NO_TOKEN = -1

# How an id is chosen: logits [B, vocab] -> ids [B] int32.
Choose = Callable[[mx.array], mx.array]

# Sound is worked off in blocks of this many audio tokens (2.56 s): weights are
# read once for all of them, and memory stays bounded for any amount of sound.
MAX_AUDIO_TOKENS_PER_STEP = 32


@dataclass(slots=True)
class VoxtralState:
    """All that one stream per row remembers."""

    mel: LogMelState
    encoder: EncoderState
    decoder: DecoderState
    token: mx.array  # [B, 1], input of the next position
    n_forced: NDArray[np.int64]  # [B], prompt tokens after `token`

    def copy(self) -> "VoxtralState":
        """An independent stream that goes on from here."""
        return VoxtralState(
            self.mel.copy(),
            self.encoder.copy(),
            self.decoder.copy(),
            self.token,
            self.n_forced.copy(),
        )

    def packed(self) -> "VoxtralState":
        """A copy in little memory, computed; see `RingKVCache.packed`."""
        state = self.copy()
        state.encoder.cache = state.encoder.cache.packed()
        state.decoder.cache = state.decoder.cache.packed()
        mx.eval(state.arrays())
        return state

    def unpacked(self) -> "VoxtralState":
        state = self.copy()
        state.encoder.cache = state.encoder.cache.unpacked()
        state.decoder.cache = state.decoder.cache.unpacked()
        return state

    def arrays(self) -> list[mx.array]:
        """All that is computed on the device."""
        encoder, decoder = self.encoder, self.decoder
        stem = encoder.stem
        pending = [self.mel.pending, stem.conv1.pending, stem.conv2.pending]
        rings = [
            ring
            for cache in (encoder.cache, decoder.cache)
            for ring in (*cache.keys, *cache.values)
        ]
        return [*pending, encoder.pending, *rings, *decoder.mlp_norms, self.token]


class VoxtralRealtime(nn.Module):
    """Weights of Voxtral Realtime; every stream's memory is in its state."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        group = config.downsample_factor
        self.mel = LogMel(config.audio)
        self.encoder = Encoder(config.encoder, config.audio.num_mel_bins, group)
        self.adapter = Adapter(config.encoder.dim, config.decoder.dim, group)
        self.decoder = Decoder(config.decoder)
        # Constants of the weights, one per delay; not parameters, hence the name.
        self._after_silence: dict[int, VoxtralState] = {}

    @property
    def n_silent_samples(self) -> int:
        """How much silence a stream of `open_state` has heard.

        One audio token short of the left padding, but for what the last mel frame
        needs beyond it: that one hears the beginning of the sound as well.
        """
        return (LEFT_PAD_TOKENS - 1) * SAMPLES_PER_AUDIO_TOKEN + self.mel.lookahead

    def open_state(self, delay_ms: int = 480) -> VoxtralState:
        """A stream that has heard `n_silent_samples`; computed once per delay.

        Raises DelayError for a delay the model was not trained for.
        """
        n = delay_tokens(delay_ms)
        if n not in self._after_silence:
            state = self.make_state(delay_ms)
            self.step(mx.zeros((1, self.n_silent_samples)), state)
            self._after_silence[n] = state.packed()
        return self._after_silence[n].unpacked()

    def make_state(
        self, delay_ms: int | Sequence[int] = 480, *, position: int = 0
    ) -> VoxtralState:
        """A fresh stream, or one per entry of `delay_ms`, about to hear its prompt.

        The stream begins with 32 audio tokens of silence, as the model was trained;
        feeding them is `step`'s caller's first duty (see `Session`). `position` is
        where the decoder's rotary counter starts (the encoder's at four times it).
        Raises DelayError for a delay the model was not trained for.
        """
        delays = [delay_ms] if isinstance(delay_ms, int) else list(delay_ms)
        tokens = [delay_tokens(ms) for ms in delays]
        B = len(tokens)
        return VoxtralState(
            mel=self.mel.make_state(B),
            encoder=self.encoder.make_state(B, position * self.encoder.group),
            decoder=self.decoder.make_state(tokens, position),
            token=mx.full((B, 1), BOS_ID, mx.int32),
            n_forced=np.array([LEFT_PAD_TOKENS + n for n in tokens], np.int64),
        )

    def step(self, samples: mx.array, state: VoxtralState) -> NDArray[np.int32]:
        """Samples [B, n] float32 -> greedy token ids [B, k], one per audio token.

        An id is NO_TOKEN while its row's prompt is not over. The end-of-sequence id
        is never chosen: a stream has no end but its owner's, and a decoder fed its
        own EOS goes on where no training sequence ever went.
        """
        block = MAX_AUDIO_TOKENS_PER_STEP * SAMPLES_PER_AUDIO_TOKEN
        ids = [np.zeros((samples.shape[0], 0), np.int32)]
        for start in range(0, samples.shape[1], block):
            audio = self.encode(samples[:, start : start + block], state)
            ids.append(self.decode(audio, state))
        return np.concatenate(ids, axis=1)

    def encode(self, samples: mx.array, state: VoxtralState) -> mx.array:
        """Samples [B, n] -> audio embeddings [B, k, dim] of the tokens now whole."""
        mel_frames = self.mel.step(samples, state.mel)
        audio = self.adapter(self.encoder.step(mel_frames, state.encoder))
        # What waits for the next step must not hold on to this step's graph.
        stem = state.encoder.stem
        mx.async_eval(
            audio,
            state.mel.pending,
            stem.conv1.pending,
            stem.conv2.pending,
            state.encoder.pending,
        )
        return audio

    def decode(
        self, audio: mx.array, state: VoxtralState, choose: Choose | None = None
    ) -> NDArray[np.int32]:
        """Audio embeddings [B, k, dim] -> token ids [B, k] as `step` gives them.

        `choose`, instead of `greedy`, is called once for every position at which a
        row has left its prompt, in order.
        """
        choose = choose or greedy
        B, k, _ = audio.shape
        blank = mx.full((B, 1), NO_TOKEN, mx.int32)
        chosen: list[mx.array] = []
        done = 0
        while done < k:
            # Positions whose input tokens are all known go through together.
            n = min(k - done, int(state.n_forced.min()) + 1)
            pads = mx.full((B, n - 1), STREAMING_PAD_ID, mx.int32)
            tokens = mx.concatenate([state.token, pads], axis=1)
            embeddings = audio[:, done : done + n] + self.decoder.embed(tokens)
            state.n_forced -= n
            forced = state.n_forced >= 0
            if forced.all():
                self.decoder.step(embeddings, state.decoder, n_logits=0)
                mx.async_eval(state.decoder.cache.keys, state.decoder.cache.values)
                state.token = mx.full((B, 1), STREAMING_PAD_ID, mx.int32)
                chosen += [blank] * n
            else:
                logits = self.decoder.step(embeddings, state.decoder, n_logits=1)
                best = choose(logits[:, 0])[:, None]
                chosen += [blank] * (n - 1)
                if forced.any():
                    inside = mx.array(forced.tolist())[:, None]
                    chosen.append(mx.where(inside, NO_TOKEN, best))
                    best = mx.where(inside, STREAMING_PAD_ID, best)
                else:
                    chosen.append(best)
                mx.async_eval(best)
                state.token = best
                state.n_forced = np.maximum(state.n_forced, 0)
            done += n
        if not chosen:
            return np.zeros((B, 0), np.int32)
        return np.array(mx.concatenate(chosen, axis=1))


def greedy(logits: mx.array) -> mx.array:
    """The most probable id of each row of [B, vocab] that is not EOS: [B] int32."""
    possible = mx.where(_is_eos(logits.shape[-1]), -mx.inf, logits)
    return mx.argmax(possible, axis=-1).astype(mx.int32)


@cache
def _is_eos(vocab_size: int) -> mx.array:
    mask = mx.arange(vocab_size) == EOS_ID
    mx.eval(mask)
    return mask
