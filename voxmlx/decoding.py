"""Audio of one stream -> ids: probabilities, guards and hot words on request."""

import copy
import math
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.hotwords import HotwordMatch, HotwordTrie
from voxmlx.model.choosing import NO_TOKEN, NOT_FINITE, DecodeRequest, greedy
from voxmlx.model.decoder import DecoderState
from voxmlx.model.state import VoxtralState
from voxmlx.rules import DecodeRule
from voxmlx.speculation import Speculation

__all__ = ["Decoded", "NotFiniteError", "Steps", "TokenDecoder"]

# Ids kept back while it is open whether a hot word will be complete.
_MAX_HELD = 64
# Ids after a hot word that show whether the rest is what it would have been.
_REST_TOKENS = 12
# Of known ids the network hears the last ones: as many as a ring holds, and so many
# before (80 s), so that no position in it has heard a prompt in the middle of speech.
_LEAD_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Decoded:
    """One id, and what was asked for about it.

    `guard` names the rule without which it would have been another id.
    `alternatives` are pairs of id and log-probability, most probable first.
    `recovered` names what was not finite, at the first id from a new state.
    """

    token_id: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()
    guard: str | None = None
    recovered: str | None = None


class NotFiniteError(Exception):
    """A logit of the next position is infinite or NaN; caught by what recovers."""


# What a stream wants decoded next -> its ids [k]. A generator, so that whoever drives
# it may decode many streams in one pass.
Steps = Generator[DecodeRequest, list[int], None]


@dataclass(frozen=True, slots=True)
class _Position:
    """An audio token's embedding [1, 1, dim], and whether there was speech."""

    audio: mx.array
    is_speech: bool


@dataclass(slots=True)
class _Bet:
    """Ids that are due to a hot word's help, and how to go on without it."""

    plain: Decoded
    decoder: DecoderState
    rules: list[DecodeRule]
    match: HotwordMatch | None
    is_speech: bool
    ids: list[Decoded]  # from the first that differs on
    positions: list[_Position] = field(default_factory=list[_Position])  # of the others
    n_word: int | None = None  # ids up to the hot word's last, once it is complete
    is_lost: bool = False
    # Of a guard's word: how probable the id after the marker must be.
    min_confidence: float | None = None


class TokenDecoder:
    """One stream's ids, one per audio token, as `VoxtralRealtime.step` gives them.

    What is not asked for costs nothing: without rules, hot words and probabilities
    it is the model's own loop. Rules that are idle leave that loop alone.

    Hot words are a bet: where a boost changes an id, the ids from there on are held
    back until the hot word is complete, and a few more. If it never is, or if anything
    else would be said after it than without, all is taken back, and the stream goes on
    as if there had been no such word; so some ids come out a little later, and neither
    half a hot word nor another one is ever written for a boost's sake.

    A guard's word is tried in the same way. Where a guard has a WORD written in place
    of a PAD token, that id is held back until the next one shows whether the model has
    heard a word: PAD -> WORD (held) -> text of enough probability: both are certain;
    anything else: the PAD token stands, and the position after it is decoded again.
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
        self._bet: _Bet | None = None
        self._certain: list[Decoded] = []
        self._known: deque[Decoded] = deque()
        # Positions of the stream's own prompt that are still to come: they get no id.
        self._n_prompt = state.n_forced

    def set_known(self, known: Sequence[Decoded], n_positions: int) -> int:
        """Take the first ids from `known`; how many positions to `skip` first.

        There will be audio for `n_positions`. Known ids are given to the network many
        at a time, as a prompt is, but only the last ones: what is far back leaves no
        trace in the rings. With hot words the last ones, which may be part of one, are
        decoded all the same.
        """
        known = known[: max(0, n_positions - self._n_prompt)]
        known = known[: self._n_settled(known)]
        self._known = deque(known)
        n_heard = self.state.decoder.cache.window + _LEAD_TOKENS
        return max(0, len(known) - n_heard)

    def skip(self, speech: Sequence[bool]) -> None:
        """Take the known ids of the next positions; the network hears nothing of them."""
        self._take_known(speech)

    def forget_known(self) -> None:
        """Decode all ids from now on."""
        self._known.clear()

    def _n_settled(self, known: Sequence[Decoded]) -> int:
        """How many of them end where no hot word may have been helped to begin."""
        if self._match is None:
            return len(known)
        match, n_settled = self._match.copy(), 0
        for n, one in enumerate(known, 1):
            match.observe(one.token_id, 0.0)
            if match.is_idle:
                n_settled = n
        return n_settled

    def arrays(self) -> list[mx.array]:
        """All that is computed on the device, what an open trial holds included."""
        arrays = self.state.arrays()
        if (bet := self._bet) is not None:
            arrays += bet.decoder.cache.arrays()
            arrays += [bet.decoder.mlp_norms, *(p.audio for p in bet.positions)]
        return arrays

    def step(self, audio: mx.array, speech: Sequence[bool]) -> Steps:
        """Decode audio embeddings [1, k, dim]; then `take` what is certain.

        `speech` says of each audio token whether the sound it speaks about is loud
        enough to be speech; only rules look at it. Raises NotFiniteError; what was
        certain before can be taken, and `restart` makes the decoder whole.
        """
        done, k = 0, audio.shape[1]
        while done < k:
            if self._known:
                n = min(k - done, self._n_prompt + len(self._known))
                part = audio[:, done : done + n]
                yield from self._replay(part, speech[done : done + n])
                done += n
                continue
            n = min(k - done, self._n_idle())
            if n:
                part = audio[:, done : done + n]
                yield from self._run(part, speech[done:])
                self._n_prompt -= min(n, self._n_prompt)
                done += n
            else:
                position = _Position(audio[:, done : done + 1], speech[done])
                yield from self._decide([position])
                done += 1

    def finish(self) -> Steps:
        """Decide about the ids held back: no hot word is completed any more."""
        while (bet := self._bet) is not None:
            if bet.n_word is None:
                bet.is_lost = True
            else:
                yield from self._judge(bet)
            yield from self._decide(self._settle(bet))

    def take(self) -> list[Decoded]:
        """Return what became certain since the last call, one for each position.

        Inside a prompt there is no id, but NO_TOKEN.
        """
        certain, self._certain = self._certain, []
        return certain

    def restart(self, state: VoxtralState) -> None:
        """Go on from `state`, which has heard all positions that were taken.

        Ids that were held back are forgotten.
        """
        if self._bet is not None:
            self._rules, self._match = self._bet.rules, self._bet.match
            self._bet = None
        self.state = state

    def _n_idle(self) -> int:
        """How many positions need no look at their ids on the way."""
        n_forced = self.state.n_forced
        if self._match is not None or self._bet is not None:
            return n_forced
        idle = (rule.idle_tokens() for rule in self._rules)
        return n_forced + min(idle, default=1 << 30)

    def _run(self, audio: mx.array, speech: Sequence[bool]) -> Steps:
        """The model's own choice at every position of `audio` [1, n, dim]."""
        scores = _Scores(self._n_alternatives) if self._has_probabilities else None
        ids = yield DecodeRequest(audio, self.state, scores, self.speculation)
        n_chosen = 0
        for token_id, is_speech in zip(ids, speech, strict=False):
            if token_id == NOT_FINITE:
                raise NotFiniteError
            if token_id < 0:
                self._certain.append(Decoded(token_id))
                continue
            for rule in self._rules:
                rule.observe(token_id, is_speech)
            decoded = scores.decoded(n_chosen) if scores else Decoded(token_id)
            self._certain.append(decoded)
            n_chosen += 1

    def _replay(self, audio: mx.array, speech: Sequence[bool]) -> Steps:
        """Known ids at every position of `audio` [1, n, dim] after the prompt."""
        known = self._take_known(speech)
        yield DecodeRequest(audio, self.state, known=known)

    def _take_known(self, speech: Sequence[bool]) -> list[int]:
        """Make known ids certain, after what is left of the prompt; return all."""
        n_prompt = min(len(speech), self._n_prompt)
        self._n_prompt -= n_prompt
        self._certain += [Decoded(NO_TOKEN)] * n_prompt
        ids: list[int] = []
        for is_speech in speech[n_prompt:]:
            one = self._known.popleft()
            self._observe(one.token_id, is_speech, help_given=0.0)
            self._certain.append(one)
            ids.append(one.token_id)
        if self.speculation is not None:
            self.speculation.observe(ids)
        return [STREAMING_PAD_ID] * n_prompt + ids

    def _decide(self, positions: list[_Position]) -> Steps:
        """Decode positions one by one, with all that may change an id."""
        waiting = positions[::-1]
        while waiting:
            position = waiting.pop()
            yield from self._one(position)
            bet = self._bet
            if bet is None:
                continue
            if bet.min_confidence is not None:
                is_over = bet.is_lost or len(bet.ids) > 1
            elif bet.n_word is None:
                assert self._match is not None
                bet.is_lost = self._match.is_broken or len(bet.ids) > _MAX_HELD
                is_over = bet.is_lost
            else:
                is_over = bet.is_lost or len(bet.ids) >= bet.n_word + _REST_TOKENS
                if is_over and not bet.is_lost:
                    yield from self._judge(bet)
            if is_over:
                waiting += self._settle(bet)[::-1]

    def _judge(self, bet: _Bet) -> Steps:
        """Lose a bet whose hot word, now complete, changes what is said after it."""
        assert self._match is not None
        assert bet.match is not None
        assert bet.n_word is not None
        state = copy.copy(self.state)
        _go_back(state, bet)
        state.decoder = bet.decoder.copy()
        rules = [rule.copy() for rule in bet.rules]
        for rule in rules:
            rule.observe(bet.plain.token_id, bet.is_speech)
        rest: list[Decoded] = []
        if bet.positions:
            audio = mx.concatenate([p.audio for p in bet.positions], axis=1)
            speech = [p.is_speech for p in bet.positions]
            without = TokenDecoder(state, rules=rules)
            yield from without.step(audio, speech)
            rest = without.take()
        bet.is_lost = not self._match.trie.keeps_rest(
            [one.token_id for one in (bet.plain, *rest)],
            [one.token_id for one in bet.ids],
            bet.n_word,
            is_inside=bet.match.is_inside_word,
        )

    def _settle(self, bet: _Bet) -> list[_Position]:
        """Add what is certain now that the bet is over; what is to be decoded again."""
        self._bet = None
        if not bet.is_lost:
            self._certain += bet.ids
            return []
        _go_back(self.state, bet)
        self._rules, self._match = bet.rules, bet.match
        if bet.min_confidence is not None:
            for rule in self._rules:
                if rule.min_confidence is not None:
                    rule.refused()
        self._observe(bet.plain.token_id, bet.is_speech, help_given=0.0)
        self._certain.append(bet.plain)
        return bet.positions

    def _observe(self, token_id: int, is_speech: bool, help_given: float) -> None:
        for rule in self._rules:
            rule.observe(token_id, is_speech)
        if self._match is not None:
            self._match.observe(token_id, help_given)

    def _one(self, position: _Position) -> Steps:
        """One position; its id is certain unless a bet is on."""
        bet = self._bet
        is_tried = bet is not None and bet.min_confidence is not None
        # One trial at a time.
        rules = [r for r in self._rules if bet is None or r.min_confidence is None]
        biases = [(r, r.bias(position.is_speech)) for r in rules]
        has_boost = self._match is not None and not is_tried
        choice = _Choice(
            [bias for _, bias in biases if bias],
            self._match.boost() if has_boost and self._match is not None else {},
            _Scores(self._n_alternatives)
            if self._has_probabilities or is_tried
            else None,
        )
        (token_id,) = yield DecodeRequest(position.audio, self.state, choice)
        if token_id == NOT_FINITE:
            raise NotFiniteError
        raw, plain, chosen, help_given = choice.read()
        guard = None
        if plain != raw:
            rule = next(rule for rule, b in biases if raw in b or plain in b)
            if rule.min_confidence is not None:
                self._try(rule, choice, raw, plain, position)
                return
            guard = rule.name
        decoded = choice.decoded(chosen, guard)
        if is_tried:
            assert bet is not None
            bet.is_lost = not _is_plausible(decoded, bet.min_confidence)
            if not self._has_probabilities:
                decoded = Decoded(chosen, guard=decoded.guard)
        if chosen != plain and bet is not None and bet.n_word is not None:
            # Another hot word begins: so far the rest must be the same.
            yield from self._judge(bet)
            if bet.is_lost:
                bet.positions.append(position)
                return
            self._certain += bet.ids
            bet = None
        if chosen != plain and bet is None:
            assert self._match is not None
            self._bet = _Bet(
                plain=choice.decoded(plain, guard),
                decoder=self.state.decoder.copy(),
                rules=[rule.copy() for rule in self._rules],
                match=self._match.copy(),
                is_speech=position.is_speech,
                ids=[decoded],
            )
        elif bet is not None:
            bet.ids.append(decoded)
            bet.positions.append(position)
        else:
            self._certain.append(decoded)
        self._observe(chosen, position.is_speech, help_given)
        if bet is not None and bet.n_word is None and self._match is not None:
            # It takes the id after a hot word to know that it is complete.
            bet.n_word = len(bet.ids) - 1 if self._match.is_complete else None

    def _try(
        self,
        guard: DecodeRule,
        choice: "_Choice",
        pad: int,
        word: int,
        position: _Position,
    ) -> None:
        """Hold back the `word` that a guard has written in place of `pad`.

        From a PAD token on, text begins with a WORD: anything else is no word heard.
        """
        self._bet = _Bet(
            plain=choice.decoded(pad, None),
            decoder=self.state.decoder.copy(),
            rules=[rule.copy() for rule in self._rules],
            match=None if self._match is None else self._match.copy(),
            is_speech=position.is_speech,
            ids=[choice.decoded(word, guard.name)],
            is_lost=word != STREAMING_WORD_ID,
            min_confidence=guard.min_confidence,
        )
        self._observe(word, position.is_speech, help_given=0.0)


def _is_plausible(decoded: Decoded, min_confidence: float | None) -> bool:
    """Return whether an id is text, and the model is sure enough of it."""
    if decoded.token_id in (STREAMING_PAD_ID, STREAMING_WORD_ID):
        return False
    assert decoded.logprob is not None
    assert min_confidence is not None
    return decoded.logprob >= math.log(min_confidence)


def _go_back(state: VoxtralState, bet: _Bet) -> None:
    """To where the bet began, with the id it had replaced."""
    state.decoder = bet.decoder
    state.token = mx.array([[bet.plain.token_id]], mx.int32)


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
