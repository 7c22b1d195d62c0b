"""Audio of one stream -> ids: probabilities, guards and hot words on request."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx.hotwords import HotwordMatch, HotwordTrie
from voxmlx.model.choosing import Decoding, greedy
from voxmlx.model.decoder import DecoderState
from voxmlx.model.state import VoxtralState
from voxmlx.rules import DecodeRule
from voxmlx.speculation import Speculation

__all__ = ["Decoded", "Steps", "TokenDecoder"]

# Ids kept back while it is open whether a hot word will be complete.
_MAX_HELD = 64


@dataclass(frozen=True, slots=True)
class Decoded:
    """One id, and what was asked for about it.

    `guard` names the rule without which it would have been another id.
    `alternatives` are pairs of id and log-probability, most probable first.
    """

    token_id: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()
    guard: str | None = None


# What a stream wants decoded next -> its ids [k]; in the end, the ids now certain.
# A generator, so that whoever drives it may decode many streams in one pass.
Steps = Generator[Decoding, list[int], list[Decoded]]


@dataclass(frozen=True, slots=True)
class _Position:
    """An audio token's embedding [1, 1, dim], and whether there was speech."""

    audio: mx.array
    is_speech: bool


@dataclass(slots=True)
class _Start:
    """How to go on without the hot word that changed its first id here."""

    plain: Decoded
    decoder: DecoderState
    rules: list[DecodeRule]
    match: HotwordMatch
    is_speech: bool


class TokenDecoder:
    """One stream's ids, one per audio token, as `VoxtralRealtime.step` gives them.

    What is not asked for costs nothing: without rules, hot words and probabilities
    it is the model's own loop. Rules that are idle leave that loop alone.

    Hot words are a bet: where a boost changes an id, the ids from there on are held
    back until the hot word is complete. If it never is, all is taken back, and the
    stream goes on as if there had been no such word; so an id comes out a little
    later, and half a hot word is never written for a boost's sake.
    """

    def __init__(
        self,
        state: VoxtralState,
        *,
        rules: Sequence[DecodeRule] = (),
        hotwords: HotwordTrie | None = None,
        has_probabilities: bool = False,
        n_alternatives: int = 0,
        speculation: Speculation | None = None,
    ) -> None:
        self.state = state
        self.speculation = speculation
        self._rules = list(rules)
        self._match = HotwordMatch(hotwords) if hotwords else None
        self._has_probabilities = has_probabilities or n_alternatives > 0
        self._n_alternatives = n_alternatives
        self._start: _Start | None = None
        self._held: list[_Position] = []
        self._held_ids: list[Decoded] = []

    def step(self, audio: mx.array, speech: Sequence[bool]) -> Steps:
        """Audio embeddings [1, k, dim] -> ids now certain.

        `speech` says of each audio token whether the sound it speaks about is loud
        enough to be speech; only rules look at it.
        """
        decoded: list[Decoded] = []
        done, k = 0, audio.shape[1]
        while done < k:
            n = min(k - done, self._n_idle())
            if n:
                part = audio[:, done : done + n]
                decoded += yield from self._run(part, speech[done:])
                done += n
            else:
                position = _Position(audio[:, done : done + 1], speech[done])
                decoded += yield from self._bet([position])
                done += 1
        return decoded

    def finish(self) -> Steps:
        """The ids still held back: no hot word is completed any more."""
        decoded: list[Decoded] = []
        while self._start is not None:
            decoded += yield from self._take_back()
        return decoded

    def _n_idle(self) -> int:
        """How many positions need no look at their ids on the way."""
        n_forced = self.state.n_forced
        if self._match is not None:
            return n_forced
        idle = (rule.idle_tokens() for rule in self._rules)
        return n_forced + min(idle, default=1 << 30)

    def _run(self, audio: mx.array, speech: Sequence[bool]) -> Steps:
        """The model's own choice at every position of `audio` [1, n, dim]."""
        scores = _Scores(self._n_alternatives) if self._has_probabilities else None
        ids = yield Decoding(audio, self.state, scores, self.speculation)
        decoded: list[Decoded] = []
        for token_id, is_speech in zip(ids, speech, strict=False):
            if token_id < 0:
                continue
            for rule in self._rules:
                rule.accept(token_id, is_speech)
            i = len(decoded)
            decoded.append(scores.decoded(i) if scores else Decoded(token_id))
        return decoded

    def _bet(self, positions: list[_Position]) -> Steps:
        """Decode positions one by one, with all that may change an id."""
        decoded: list[Decoded] = []
        waiting = positions[::-1]
        while waiting:
            position = waiting.pop()
            decoded += yield from self._one(position)
            if self._start is not None and (
                (self._match is not None and self._match.is_broken)
                or len(self._held) > _MAX_HELD
            ):
                decoded.append(self._without())
                waiting += self._held[::-1]
                self._held = []
        return decoded

    def _take_back(self) -> Steps:
        held, plain = self._held, self._without()
        self._held = []
        rest = yield from self._bet(held)
        return [plain, *rest]

    def _without(self) -> Decoded:
        """Go back to where the bet began, and take the id it had replaced."""
        start, self._start = self._start, None
        assert start is not None
        assert self._match is not None
        self._held_ids = []
        state = self.state
        state.decoder = start.decoder
        state.token = mx.array([[start.plain.token_id]], mx.int32)
        self._rules, self._match = start.rules, start.match
        self._accept(start.plain.token_id, start.is_speech, help_given=0.0)
        return start.plain

    def _accept(self, token_id: int, is_speech: bool, help_given: float) -> None:
        for rule in self._rules:
            rule.accept(token_id, is_speech)
        if self._match is not None:
            self._match.accept(token_id, help_given)

    def _one(self, position: _Position) -> Steps:
        """One position; its id is certain unless a bet is on."""
        biases = [(r.name, r.bias(position.is_speech)) for r in self._rules]
        boost = self._match.boost() if self._match is not None else {}
        choice = _Choice(
            [bias for _, bias in biases if bias],
            boost,
            _Scores(self._n_alternatives) if self._has_probabilities else None,
        )
        yield Decoding(position.audio, self.state, choice)
        raw, plain, chosen, help_given = choice.read()
        guard = None
        if plain != raw:
            guard = next(name for name, b in biases if raw in b or plain in b)
        decoded = choice.decoded(chosen, guard)
        if chosen != plain and self._start is None:
            assert self._match is not None
            self._start = _Start(
                plain=choice.decoded(plain, guard),
                decoder=self.state.decoder.copy(),
                rules=[rule.copy() for rule in self._rules],
                match=self._match.copy(),
                is_speech=position.is_speech,
            )
            self._accept(chosen, position.is_speech, help_given)
            self._held_ids = [decoded]
        else:
            self._accept(chosen, position.is_speech, help_given)
            if self._start is None:
                return [decoded]
            self._held_ids.append(decoded)
            self._held.append(position)
        assert self._match is not None
        if not self._match.is_complete:
            return []
        certain, self._held_ids, self._held = self._held_ids, [], []
        self._start = None
        return certain


class _Scores:
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
        """Of logits [1, vocab], those of `ids` [n] and of the most probable."""
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


class _Choice:
    """The best id with nothing added, with the rules', and with hot words' too."""

    def __init__(
        self,
        biases: Sequence[Mapping[int, float]],
        boost: Mapping[int, float],
        scores: _Scores | None,
    ) -> None:
        self._biases = biases
        self._boost = boost
        self._scores = scores

    def __call__(self, logits: mx.array) -> mx.array:
        raw = greedy(logits)
        ruled = _added(logits, *self._biases)
        plain = greedy(ruled) if self._biases else raw
        chosen = greedy(_added(ruled, self._boost)) if self._boost else plain
        self._ids = mx.concatenate([raw, plain, chosen])
        self._gap = ruled[0, plain] - ruled[0, chosen]
        if self._scores is not None:
            self._scores.note(logits, self._ids)
        mx.async_eval(self._ids, self._gap)
        return chosen

    def read(self) -> tuple[int, int, int, float]:
        """The three ids, and by how much hot words helped the last."""
        ids: Any = self._ids.tolist()
        gap: Any = self._gap.item()
        raw, plain, chosen = ids
        return raw, plain, chosen, gap

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
            logits = logits.at[0, ids].add(values)
    return logits
