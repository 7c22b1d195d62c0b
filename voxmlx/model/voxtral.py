"""The whole network, driven by sound: samples in, one token id per 80 ms out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from voxmlx.model.rows import end_to_end, split

__all__ = [
    "MAX_AUDIO_TOKENS_PER_STEP",
    "NO_TOKEN",
    "Choose",
    "Decoding",
    "VoxtralRealtime",
    "VoxtralState",
    "greedy",
]

# Stands in `step`'s result where a row is still inside its prompt.
NO_TOKEN = -1

# How an id is chosen: logits [1, vocab] -> id [1] int32.
Choose = Callable[[mx.array], mx.array]

# Sound is worked off in blocks of this many audio tokens (2.56 s): weights are
# read once for all of them, and memory stays bounded for any amount of sound.
MAX_AUDIO_TOKENS_PER_STEP = 32


@dataclass(slots=True)
class VoxtralState:
    """All that one stream remembers."""

    mel: LogMelState
    encoder: EncoderState
    decoder: DecoderState
    token: mx.array  # [1, 1], input of the next position
    n_forced: int  # prompt tokens after `token`

    def copy(self) -> "VoxtralState":
        """An independent stream that goes on from here."""
        return VoxtralState(
            self.mel.copy(),
            self.encoder.copy(),
            self.decoder.copy(),
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
        rings = [*encoder.cache.arrays(), *decoder.cache.arrays()]
        return [*pending, encoder.pending, *rings, decoder.mlp_norms, self.token]


class VoxtralRealtime(nn.Module):
    """Weights of Voxtral Realtime; every stream's memory is in its state."""

    def __init__(self, config: ModelConfig, *, kv_bits: int = 16) -> None:
        """`kv_bits`, one of KV_BITS, is how the decoder's rings keep their numbers."""
        super().__init__()
        self.config = config
        group = config.downsample_factor
        self.mel = LogMel(config.audio)
        self.encoder = Encoder(config.encoder, config.audio.num_mel_bins, group)
        self.adapter = Adapter(config.encoder.dim, config.decoder.dim, group)
        self.decoder = Decoder(config.decoder, kv_bits=kv_bits)
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

    def make_state(self, delay_ms: int = 480, *, position: int = 0) -> VoxtralState:
        """A fresh stream, about to hear its prompt.

        The stream begins with 32 audio tokens of silence, as the model was trained;
        feeding them is `step`'s caller's first duty (see `Session`). `position` is
        where the decoder's rotary counter starts (the encoder's at four times it).
        Raises DelayError for a delay the model was not trained for.
        """
        n_delay = delay_tokens(delay_ms)
        return VoxtralState(
            mel=self.mel.make_state(),
            encoder=self.encoder.make_state(position=position * self.encoder.group),
            decoder=self.decoder.make_state([n_delay], position),
            token=mx.full((1, 1), BOS_ID, mx.int32),
            n_forced=LEFT_PAD_TOKENS + n_delay,
        )

    def step(self, samples: mx.array, state: VoxtralState) -> NDArray[np.int32]:
        """Samples [1, n] float32 -> greedy token ids [1, k], one per audio token.

        An id is NO_TOKEN while the prompt is not over. The end-of-sequence id is
        never chosen: a stream has no end but its owner's, and a decoder fed its own
        EOS goes on where no training sequence ever went.
        """
        block = MAX_AUDIO_TOKENS_PER_STEP * SAMPLES_PER_AUDIO_TOKEN
        ids = [np.zeros((1, 0), np.int32)]
        for start in range(0, samples.shape[1], block):
            audio = self.encode(samples[:, start : start + block], state)
            ids.append(self.decode(audio, state))
        return np.concatenate(ids, axis=1)

    def encode(self, samples: mx.array, state: VoxtralState) -> mx.array:
        """Samples [1, n] -> audio embeddings [1, k, dim] of the tokens now whole."""
        return self.encode_together([samples], [state])[0]

    def encode_together(
        self, samples: Sequence[mx.array], states: Sequence[VoxtralState]
    ) -> list[mx.array]:
        """What `encode` gives for each stream; weights are read once for all."""
        mel_frames = self.mel.step_together(samples, [s.mel for s in states])
        frames = self.encoder.step_together(mel_frames, [s.encoder for s in states])
        sizes = [x.shape[1] // self.adapter.group for x in frames]
        audio = split(self.adapter(end_to_end(frames)), sizes)
        # What waits for the next step must not hold on to this step's graph.
        for state in states:
            stem = state.encoder.stem
            mx.async_eval(
                state.mel.pending,
                stem.conv1.pending,
                stem.conv2.pending,
                state.encoder.pending,
            )
        mx.async_eval(audio)
        return audio

    def decode(
        self, audio: mx.array, state: VoxtralState, choose: Choose | None = None
    ) -> NDArray[np.int32]:
        """Audio embeddings [1, k, dim] -> token ids [1, k] as `step` gives them.

        `choose`, instead of `greedy`, is called once for every position after the
        prompt, in order.
        """
        decoding = Decoding(audio, state, choose)
        while not decoding.is_done:
            self.decode_together([decoding])
        return decoding.ids()

    def decode_together(self, decodings: Sequence["Decoding"]) -> None:
        """Take each of the streams one choice further: one pass for all of them.

        Positions whose input tokens are all known go through together, so a stream
        inside its prompt takes many at once, and one after it takes one.
        """
        parts = [decoding.next_inputs() for decoding in decodings]
        tokens = end_to_end([tokens for _, tokens in parts])
        sizes = [tokens.shape[1] for _, tokens in parts]
        embedded = split(self.decoder.embed(tokens), sizes)
        embeddings = [audio + x for (audio, _), x in zip(parts, embedded, strict=True)]
        choosing = [d.takes(n) for d, n in zip(decodings, sizes, strict=True)]
        states = [d.state for d in decodings]
        logits = self.decoder.step_together(
            embeddings, [s.decoder for s in states], choosing
        )
        if logits is None:
            for cache in (state.decoder.cache for state in states):
                mx.async_eval(cache.arrays())
            return
        rows = [d for d, chooses in zip(decodings, choosing, strict=True) if chooses]
        best = _chosen(logits, [row.choose for row in rows])
        for i, row in enumerate(rows):
            row.accept(best[i : i + 1, None])
        mx.async_eval(best)


@dataclass(slots=True)
class Decoding:
    """Audio embeddings [1, k, dim] of one stream on their way to ids [1, k]."""

    audio: mx.array
    state: VoxtralState
    choose: Choose | None = None
    n_done: int = 0
    _chosen: list[mx.array] = field(default_factory=list[mx.array])

    @property
    def is_done(self) -> bool:
        return self.n_done == self.audio.shape[1]

    def next_inputs(self) -> tuple[mx.array, mx.array]:
        """Embeddings [1, n, dim] and tokens [1, n] of the positions that are known."""
        n = min(self.audio.shape[1] - self.n_done, self.state.n_forced + 1)
        tokens = self.state.token
        if n > 1:
            pads = mx.full((1, n - 1), STREAMING_PAD_ID, mx.int32)
            tokens = mx.concatenate([tokens, pads], axis=1)
        return self.audio[:, self.n_done : self.n_done + n], tokens

    def takes(self, n: int) -> bool:
        """Count n positions as done; whether the last of them chooses an id."""
        state = self.state
        chooses = n > state.n_forced
        n_blank = n - chooses
        if n_blank:
            self._chosen.append(mx.full((1, n_blank), NO_TOKEN, mx.int32))
        if not chooses:
            state.token = mx.full((1, 1), STREAMING_PAD_ID, mx.int32)
        state.n_forced -= n_blank
        self.n_done += n
        return chooses

    def accept(self, best: mx.array) -> None:
        """The id [1, 1] that was chosen."""
        self._chosen.append(best)
        self.state.token = best

    def ids(self) -> NDArray[np.int32]:
        """Ids [1, k], one per audio token; waits until they are computed."""
        if not self._chosen:
            return np.zeros((1, 0), np.int32)
        return np.array(end_to_end(self._chosen))


def _chosen(logits: mx.array, chooses: Sequence[Choose | None]) -> mx.array:
    """An id [R] for each row of [R, vocab], by its own way to choose."""
    if all(choose is None for choose in chooses):
        return greedy(logits)
    return mx.concatenate(
        [(choose or greedy)(logits[i : i + 1]) for i, choose in enumerate(chooses)]
    )


def greedy(logits: mx.array) -> mx.array:
    """The most probable id of each row of [B, vocab] that is not EOS: [B] int32."""
    possible = mx.where(_is_eos(logits.shape[-1]), -mx.inf, logits)
    return mx.argmax(possible, axis=-1).astype(mx.int32)


@cache
def _is_eos(vocab_size: int) -> mx.array:
    mask = mx.arange(vocab_size) == EOS_ID
    mx.eval(mask)
    return mask
