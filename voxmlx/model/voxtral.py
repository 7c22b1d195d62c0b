"""The whole network, driven by sound: samples in, one token id per 80 ms out."""

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
    ModelConfig,
    delay_tokens,
)
from voxmlx.kernels import self_check
from voxmlx.model.adapter import Adapter
from voxmlx.model.choosing import Choose, DecodeRequest, greedy, logits_of
from voxmlx.model.decoder import Decoder
from voxmlx.model.encoder import Encoder
from voxmlx.model.mel import LogMel
from voxmlx.model.stacking import concat_positions, split
from voxmlx.model.state import VoxtralState, all_finite
from voxmlx.speculation import MAX_POSITIONS

__all__ = ["MAX_AUDIO_TOKENS_PER_STEP", "VoxtralRealtime"]

# Sound is worked off in blocks of this many audio tokens (2.56 s): weights are
# read once for all of them, and memory stays bounded for any amount of sound.
MAX_AUDIO_TOKENS_PER_STEP = 32

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
        # By delay tokens and bits of a ring.
        self._after_silence: dict[tuple[int, int], VoxtralState] = {}

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
        speculates: bool = False,
    ) -> VoxtralState:
        """A stream that has heard `n_silent_samples`; computed once per kind.

        `kv_bits`, one of KV_BITS, is how the decoder's rings keep their numbers. A
        stream that `speculates` has room to take positions back. Raises DelayError
        for a delay the model was not trained for.
        """
        for _ in self.prepare(delay_ms, kv_bits=kv_bits):
            pass
        kind = delay_tokens(delay_ms), kv_bits
        # One more than a pass takes: all of them may have to be taken back.
        step = MAX_POSITIONS + 1 if speculates else None
        return self._after_silence[kind].copy(step)

    def prepare(self, delay_ms: int, *, kv_bits: int = 16) -> Iterator[None]:
        """Compute what `open_state` copies, in passes of a few positions each.

        Somebody who has other work to do does it between two passes. Where all is
        computed already, there is none. Raises DelayError.
        """
        kind = delay_tokens(delay_ms), kv_bits
        if kind in self._after_silence:
            return
        self_check(self.config, self.decoder.dtype, kv_bits)
        state = yield from self._after_prompt(delay_ms, kv_bits)
        if not all_finite(state.arrays()):
            # Once more, or every later stream would begin with it.
            self._silence = None
            state = yield from self._after_prompt(delay_ms, kv_bits)
        self._after_silence[kind] = state.packed()

    def _after_prompt(
        self, delay_ms: int, kv_bits: int
    ) -> Generator[None, None, VoxtralState]:
        """Take a new state through the silence; see `prepare`."""
        state = self.make_state(delay_ms, kv_bits=kv_bits)
        if self._silence is None:
            audio = self.encode(np.zeros((1, self.n_silent_samples), np.float32), state)
            mx.eval(audio)
            encoded = state.packed()
            self._silence = audio, encoded
            yield
        audio, encoded = self._silence
        state.mel, state.encoder = encoded.mel.copy(), encoded.encoder.copy()
        for start in range(0, audio.shape[1], _PREPARED_TOKENS):
            self.decode(audio[:, start : start + _PREPARED_TOKENS], state)
            mx.eval(state.decoder.cache.rings, state.token)
            yield
        return state

    def is_prepared(self, delay_ms: int, *, kv_bits: int = 16) -> bool:
        """Return whether `open_state` copies at once. Raises DelayError."""
        return (delay_tokens(delay_ms), kv_bits) in self._after_silence

    def make_state(
        self, delay_ms: int = DEFAULT_DELAY_MS, *, position: int = 0, kv_bits: int = 16
    ) -> VoxtralState:
        """A fresh stream, about to hear its prompt.

        The stream begins with `left_pad_tokens` of silence, as the model was trained;
        feeding them is `step`'s caller's first duty (see `Session`). `position` is
        where the decoder's rotary counter starts (the encoder's at four times it).
        Raises DelayError for a delay the model was not trained for.
        """
        n_delay = delay_tokens(delay_ms)
        return VoxtralState(
            mel=self.mel.make_state(),
            encoder=self.encoder.make_state(position=position * self.encoder.group),
            decoder=self.decoder.make_state([n_delay], position, kv_bits=kv_bits),
            token=mx.full((1, 1), BOS_ID, mx.int32),
            n_forced=self.left_pad_tokens + n_delay,
        )

    def step(self, samples: Samples, state: VoxtralState) -> NDArray[np.int32]:
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

    def decode(
        self, audio: mx.array, state: VoxtralState, choose: Choose | None = None
    ) -> NDArray[np.int32]:
        """Audio embeddings [1, k, dim] -> token ids [1, k] as `step` gives them.

        `choose`, instead of `greedy`, is called once for every position after the
        prompt, in order.
        """
        return self.finish(DecodeRequest(audio, state, choose))

    def finish(self, decoding: "DecodeRequest") -> NDArray[np.int32]:
        """Take one stream to the end of its audio: its ids [1, k]."""
        while not decoding.is_done:
            self.decode_together([decoding])
        return decoding.ids()

    def decode_together(self, decodings: Sequence["DecodeRequest"]) -> None:
        """Take each of the streams one pass further, the same for all of them.

        Positions whose input tokens are all known go through together, so a stream
        inside its prompt takes many at once, and one after it takes one; or as many
        as it speculates on, and keeps those that were right.
        """
        queued = [decoding.state.token for decoding in decodings]
        parts = [decoding.next_inputs() for decoding in decodings]
        tokens = concat_positions([tokens for _, tokens in parts])
        sizes = [tokens.shape[1] for _, tokens in parts]
        embedded = split(self.decoder.embed(tokens), sizes)
        embeddings = [audio + x for (audio, _), x in zip(parts, embedded, strict=True)]
        n_chosen = [d.takes(n) for d, n in zip(decodings, sizes, strict=True)]
        states = [d.state for d in decodings]
        logits = self.decoder.step_together(
            embeddings, [s.decoder for s in states], n_chosen
        )
        if logits is None:
            for state in states:
                mx.eval(state.decoder.cache.rings, state.token)
            return
        is_greedy = any(decoding.needs_greedy for decoding in decodings)
        best = greedy(logits) if is_greedy else None
        leading = None if best is None else logits_of(best, logits)
        first, waited_for = 0, list[mx.array]()
        for decoding, n in zip(decodings, n_chosen, strict=True):
            if n:
                rows = slice(first, first + n)
                of_best = None if best is None else best[rows]
                of_leading = None if leading is None else leading[rows]
                waited_for.append(
                    decoding.receive_logits(logits[rows], of_best, of_leading)
                )
            first += n
        # The next pass is built while this one runs, but handed over only now that it
        # has ended: a ring that a queued pass still reads would be copied, not written.
        mx.eval(queued)
        mx.async_eval([state.token for state in states], waited_for)
