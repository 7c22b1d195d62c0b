"""Choice of an id with biases, and the probabilities that belong to it."""

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx.decoding.choosing import greedy
from voxmlx.decoding.decoded import Decoded
from voxmlx.kernels.evaluation import evaluate_async

__all__ = ["Choice", "Scores"]


class Scores:
    """A way to choose that is `greedy` and notes the probabilities it saw."""

    def __init__(self, n_alternatives: int) -> None:
        self._n = n_alternatives
        self._logprobs: list[mx.array] = []
        self._ids: list[mx.array] = []
        self._top: list[mx.array] = []

    def __call__(self, logits: mx.array) -> mx.array:
        best = greedy(logits)
        self.note(logits, best)
        return best

    def note(self, logits: mx.array, ids: mx.array) -> None:
        """Note the log-probabilities of `ids` [n], and of the best, from logits [1, vocab]."""
        row = logits[0].astype(mx.float32)
        logprobs = row - mx.logsumexp(row)
        self._ids.append(ids)
        self._logprobs.append(logprobs[ids])
        if self._n:
            # As many as asked for, then in order: sorting all would cost more.
            top = mx.argpartition(-logprobs, self._n - 1)[: self._n]
            order = mx.argsort(-logprobs[top])
            self._top.append(mx.stack([top[order], logprobs[top][order]]))

    def decoded(self, index: int, token_id: int | None = None) -> Decoded:
        """The `index`-th id chosen, or of those noted there, `token_id`."""
        ids: Any = self._ids[index].tolist()
        place = 0 if token_id is None else ids.index(token_id)
        alternatives: tuple[tuple[int, float], ...] = ()
        if self._n:
            top_ids, logprobs = np.array(self._top[index]).tolist()
            pairs = zip(map(int, top_ids), logprobs, strict=True)
            alternatives = tuple(pairs)
        logprob = self._logprobs[index][place].item()
        assert isinstance(logprob, float)
        return Decoded(ids[place], logprob, alternatives)


class Choice:
    """The best id with nothing added, with the rules', and with hot words' too."""

    def __init__(
        self,
        biases: Sequence[Mapping[int, float]],
        boost: Mapping[int, float],
        scores: Scores | None,
    ) -> None:
        self._biases = biases
        self._boost = boost
        self._scores = scores

    def __call__(self, logits: mx.array) -> mx.array:
        raw = greedy(logits)
        ruled = _added(logits, *self._biases)
        unboosted = greedy(ruled) if self._biases else raw
        chosen = greedy(_added(ruled, self._boost)) if self._boost else unboosted
        self._ids = mx.concatenate([raw, unboosted, chosen])
        self._gap = ruled[0, unboosted] - ruled[0, chosen]
        if self._scores is not None:
            self._scores.note(logits, self._ids)
        evaluate_async(self._ids, self._gap)
        return chosen

    def read(self) -> tuple[int, int, int, float]:
        """The three ids, and by how much a boost helped the last."""
        ids: Any = self._ids.tolist()
        gap: Any = self._gap.item()
        raw, unboosted, chosen = ids
        return raw, unboosted, chosen, gap

    def decoded(self, token_id: int, guard: str | None) -> Decoded:
        if self._scores is None:
            return Decoded(token_id, guard=guard)
        d = self._scores.decoded(0, token_id)
        return Decoded(token_id, d.logprob, d.alternatives, guard)


def _added(logits: mx.array, *biases: Mapping[int, float]) -> mx.array:
    """Logits [1, vocab] with every bias added."""
    for bias in biases:
        if bias:
            ids = mx.array(list(bias))
            values = mx.array(list(bias.values()), logits.dtype)
            chosen: Any = logits.at[0, ids]
            logits = chosen.add(values)
    return logits
