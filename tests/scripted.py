"""A model that says what a script tells it, in place of the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import mlx.core as mx
import numpy as np

from voxmlx.checkpoint import Checkpoint
from voxmlx.config import LEFT_PAD_TOKENS, delay_tokens
from voxmlx.model.choosing import NO_TOKEN, DecodeRequest, greedy
from voxmlx.text.tokenizer import Tokenizer

__all__ = ["PAD", "WORD", "ScriptedModel", "scripted", "vocabulary"]

PAD, WORD = 32, 33

# The index of a position and the ids before it, the last one last -> logits of the
# ids that matter; all others have a logit of 0.
Script = Callable[[int, Sequence[int]], Mapping[int, float]]


def vocabulary(*words: str) -> Tokenizer:
    """All bytes, and every word as one piece."""
    pieces = [bytes([value]) for value in range(256)]
    for word in words:
        content = word.encode()
        # Byte pairs are merged from the left, so each beginning is a piece too.
        for n in range(2, len(content) + 1):
            if content[:n] not in pieces:
                pieces.append(content[:n])
    return Tokenizer(1000, pieces)


@dataclass(slots=True)
class _DecoderState:
    ids: list[int] = field(default_factory=list)
    index: int = 0

    def copy(self) -> "_DecoderState":
        return _DecoderState(list(self.ids), self.index)

    def arrays(self) -> list[mx.array]:
        return []


class ScriptedModel:
    """What a session needs of a VoxtralRealtime; notes what it decodes."""

    def __init__(self, script: Script, vocab_size: int) -> None:
        self.mel = SimpleNamespace(lookahead=40)
        self.n_silent_samples = (LEFT_PAD_TOKENS - 1) * 1280 + self.mel.lookahead
        self.calls: list[int] = []
        self._script = script
        self._vocab_size = vocab_size

    def open_state(
        self, delay_ms: int, *, kv_bits: int = 16, speculates: bool = False
    ) -> Any:
        del kv_bits, speculates
        return SimpleNamespace(
            decoder=_DecoderState(),
            token=mx.array([[PAD]]),
            n_forced=1 + delay_tokens(delay_ms),
            arrays=list[mx.array],
        )

    def encode(self, samples: mx.array, state: Any) -> mx.array:
        del state
        return mx.zeros((1, samples.shape[1] // 1280, 1))

    def finish(self, decoding: DecodeRequest) -> np.ndarray:
        audio, choose = decoding.audio, decoding.choose
        state: Any = decoding.state
        ids: list[int] = []
        self.calls.append(audio.shape[1])
        for _ in range(audio.shape[1]):
            if state.n_forced > 0:
                state.n_forced -= 1
                ids.append(NO_TOKEN)
                continue
            decoder = state.decoder
            if decoder.index:
                decoder.ids += state.token[0].tolist()
            logits = np.zeros((1, self._vocab_size), np.float32)
            for token_id, logit in self._script(decoder.index, decoder.ids).items():
                logits[0, token_id] = logit
            decoder.index += 1
            best = (choose or greedy)(mx.array(logits))
            state.token = best[:, None]
            ids += cast("list[int]", best.tolist())
        return np.array([ids], np.int32)


def scripted(script: Script, tokenizer: Tokenizer) -> Checkpoint:
    """A checkpoint whose model follows the script."""
    model = ScriptedModel(script, tokenizer.vocab_size)
    return Checkpoint("scripted", cast("Any", None), cast("Any", model), tokenizer, "")
