"""A model that says what a script tells it, in place of the network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import mlx.core as mx
import numpy as np

from voxmlx.checkpoint import Checkpoint
from voxmlx.config import LEFT_PAD_TOKENS, delay_tokens
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
class _Ring:
    """Positions that can be taken back: there is nothing on a device."""

    n_positions: int = 0
    rings: list[mx.array] = field(default_factory=list[mx.array])

    def trim(self, n: int) -> None:
        self.n_positions -= n


@dataclass(slots=True)
class _DecoderState:
    """Ids that the network was given, the prompt's among them."""

    n_prompt: int
    ids: list[int] = field(default_factory=list[int])
    cache: _Ring = field(default_factory=_Ring)

    def copy(self) -> "_DecoderState":
        return _DecoderState(self.n_prompt, list(self.ids), replace(self.cache))

    def arrays(self) -> list[mx.array]:
        return []


class ScriptedModel:
    """What a session needs of a VoxtralRealtime; counts the positions it steps."""

    def __init__(self, script: Script, vocab_size: int) -> None:
        self.mel = SimpleNamespace(lookahead=40)
        self.n_silent_samples = (LEFT_PAD_TOKENS - 1) * 1280 + self.mel.lookahead
        self.n_positions = 0
        self._script = script
        self._vocab_size = vocab_size

    def open_state(
        self, delay_ms: int, *, kv_bits: int = 16, n_trimmable: int = 0
    ) -> Any:
        del kv_bits, n_trimmable
        n_forced = 1 + delay_tokens(delay_ms)
        return SimpleNamespace(
            decoder=_DecoderState(n_forced + 1),
            token=mx.array([[PAD]]),
            n_forced=n_forced,
            arrays=list[mx.array],
        )

    def encode(self, samples: mx.array, state: Any) -> mx.array:
        del state
        return mx.zeros((1, samples.shape[1] // 1280, 1))

    def logits_together(
        self,
        audio: Sequence[mx.array],
        tokens: Sequence[mx.array],
        states: Sequence[Any],
        n_logits: Sequence[int],
    ) -> mx.array | None:
        del audio
        rows: list[np.ndarray] = []
        for given, state, n in zip(tokens, states, n_logits, strict=True):
            decoder: _DecoderState = state.decoder
            ids: Any = given[0].tolist()
            for i, token_id in enumerate(ids, 1):
                # What was trimmed is written over.
                del decoder.ids[decoder.cache.n_positions :]
                decoder.ids.append(token_id)
                decoder.cache.n_positions += 1
                if i > len(ids) - n:
                    rows.append(self._logits(decoder.ids[decoder.n_prompt :]))
            self.n_positions += len(ids)
        return mx.array(np.stack(rows)) if rows else None

    def _logits(self, before: Sequence[int]) -> np.ndarray:
        logits = np.zeros(self._vocab_size, np.float32)
        for token_id, logit in self._script(len(before), before).items():
            logits[token_id] = logit
        return logits


def scripted(script: Script, tokenizer: Tokenizer) -> Checkpoint:
    """A checkpoint whose model follows the script."""
    model = ScriptedModel(script, tokenizer.vocab_size)
    return Checkpoint("scripted", cast("Any", None), cast("Any", model), tokenizer, "")
