"""Audio of one stream -> ids: probabilities, guards and hot words on request."""

import copy
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace

import mlx.core as mx

from voxmlx.config import STREAMING_PAD_ID
from voxmlx.decoding.decoded import NO_TOKEN, NOT_FINITE, Decoded
from voxmlx.decoding.hotwords import HotwordMatch, HotwordTrie
from voxmlx.decoding.network_requests import DecodeRequest
from voxmlx.decoding.pad_guesses import PadGuesses
from voxmlx.decoding.rules import DecodeRule
from voxmlx.decoding.scores import Choice, Scores
from voxmlx.decoding.speculation import Speculation
from voxmlx.decoding.trial import GuardTrial, HotwordTrial, Position, Trial, TrialState
from voxmlx.model.decoder import DecoderState
from voxmlx.model.state import VoxtralState

__all__ = ["NotFiniteError", "Steps", "TokenDecoder"]

# Of known ids the network hears the last ones: as many as a ring holds, and so many
# before (80 s), so that no position in it has heard a prompt in the middle of speech.
_LEAD_TOKENS = 1024


class NotFiniteError(Exception):
    """A logit of the next position is infinite or NaN; caught by what recovers."""


# What a stream wants decoded next -> its ids [k]. A generator, so that whoever drives
# it may decode many streams in one pass.
Steps = Generator[DecodeRequest, list[int], None]


class TokenDecoder:
    """One stream's ids, one per audio token, as `VoxtralRealtime.step` gives them.

    What is not asked for costs nothing: without rules, hot words and probabilities
    it is the model's own loop. Rules that are idle leave that loop alone.

    Where a boost changes an id, or a guard brings text out, ids are on trial: they are
    held back until what follows confirms them, or they are rolled back (`trial.py`). So
    some ids come out a little later. Neither half a hot word nor another word is
    written because of a boost.
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
        self._pads = PadGuesses(speculation)
        self._rules = list(rules)
        self._match = HotwordMatch(hotwords) if hotwords else None
        self._has_probabilities = has_probabilities or n_alternatives > 0
        self._n_alternatives = n_alternatives
        self._trial: Trial | None = None
        self._certain: list[Decoded] = []
        self._known: deque[Decoded] = deque()
        self._n_heard = 0  # positions, those of the prompt included
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
        known = known[: self._n_before_phrase(known)]
        self._known = deque(known)
        n_heard = self.state.decoder.cache.window + _LEAD_TOKENS
        return max(0, len(known) - n_heard)

    def skip(self, speech: Sequence[bool]) -> None:
        """Take the known ids of the next positions; the network hears nothing of them."""
        self._take_known(speech)

    def forget_known(self) -> None:
        """Decode all ids from now on."""
        self._known.clear()

    def _n_before_phrase(self, known: Sequence[Decoded]) -> int:
        """How many of them end where no hot word may have been helped to begin."""
        if self._match is None:
            return len(known)
        match, n_before = self._match.copy(), 0
        for n, one in enumerate(known, 1):
            match.observe(one.token_id, 0.0)
            if match.is_idle:
                n_before = n
        return n_before

    def arrays(self) -> list[mx.array]:
        """All that is computed on the device, what an open trial holds included."""
        arrays = self.state.arrays()
        if self._trial is not None:
            arrays += self._trial.arrays()
        return arrays

    def step(
        self, audio: mx.array, speech: Sequence[bool], *, is_quiet: bool = False
    ) -> Steps:
        """Decode audio embeddings [1, k, dim]; then `take` what is certain.

        Where it `is_quiet`, PADs are guessed, and verified together. `speech` says of each audio token whether the sound it speaks about is loud
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
                yield from self._run(part, speech[done:], is_quiet)
                self._n_prompt -= min(n, self._n_prompt)
                done += n
            else:
                position = Position(audio[:, done : done + 1], speech[done])
                self._n_heard += 1
                yield from self._decode_each([position])
                done += 1

    def finish(self) -> Steps:
        """Decide about the ids held back: no hot word is completed any more."""
        while (trial := self._trial) is not None:
            if isinstance(trial, HotwordTrial) and trial.state is TrialState.COMPLETE:
                yield from self._compare(trial)
            else:
                trial.end()
            yield from self._decode_each(self._close(trial))

    def take(self) -> list[Decoded]:
        """Return what became certain since the last call, one for each position.

        Inside a prompt there is no id, but NO_TOKEN.
        """
        certain, self._certain = self._certain, []
        return certain

    def restart(self, state: VoxtralState, n_heard: int) -> None:
        """Go on from `state`, which has heard all positions that were taken: `n_heard`.

        Ids that were held back are forgotten.
        """
        self._n_heard = n_heard
        if self._trial is not None:
            self._rules, self._match = self._trial.rules, self._trial.match
            self._trial = None
        self.state = state

    def _n_idle(self) -> int:
        """How many positions need no look at their ids on the way."""
        n_forced = self.state.n_forced
        if self._match is not None or self._trial is not None:
            return n_forced
        idle = (rule.idle_tokens() for rule in self._rules)
        return n_forced + min(idle, default=1 << 30)

    def _run(self, audio: mx.array, speech: Sequence[bool], is_quiet: bool) -> Steps:
        """The model's own choice at every position of `audio` [1, n, dim]."""
        guesses = self._pads if is_quiet else self.speculation
        scores = Scores(self._n_alternatives) if self._has_probabilities else None
        ids = yield DecodeRequest(audio, self.state, scores, guesses)
        n_chosen = 0
        for token_id, is_speech in zip(ids, speech, strict=False):
            if token_id == NOT_FINITE:
                raise NotFiniteError
            self._n_heard += 1
            if token_id < 0:
                self._make_certain([Decoded(token_id)])
                continue
            for rule in self._rules:
                rule.observe(token_id, is_speech)
            decoded = scores.decoded(n_chosen) if scores else Decoded(token_id)
            self._make_certain([decoded])
            n_chosen += 1

    def _replay(self, audio: mx.array, speech: Sequence[bool]) -> Steps:
        """Known ids at every position of `audio` [1, n, dim] after the prompt."""
        known = self._take_known(speech)
        yield DecodeRequest(audio, self.state, known=known)

    def _take_known(self, speech: Sequence[bool]) -> list[int]:
        """Make known ids certain, after what is left of the prompt; return all."""
        n_prompt = min(len(speech), self._n_prompt)
        self._n_prompt -= n_prompt
        for _ in range(n_prompt):
            self._n_heard += 1
            self._make_certain([Decoded(NO_TOKEN)])
        ids: list[int] = []
        for is_speech in speech[n_prompt:]:
            self._n_heard += 1
            one = self._known.popleft()
            self._observe(one.token_id, is_speech, help_given=0.0)
            self._make_certain([one])
            ids.append(one.token_id)
        if self.speculation is not None:
            self.speculation.observe(ids)
        return [STREAMING_PAD_ID] * n_prompt + ids

    def _decode_each(self, positions: list[Position]) -> Steps:
        """Decode positions one by one, with all that may change an id."""
        waiting = positions[::-1]
        while waiting:
            yield from self._decode_one(waiting.pop())
            trial = self._trial
            if isinstance(trial, HotwordTrial) and trial.is_due:
                yield from self._compare(trial)
            if trial is not None and trial.is_over:
                waiting += self._close(trial)[::-1]

    def _compare(self, trial: HotwordTrial) -> Steps:
        """Decode a trial's positions without boosts, and let it compare."""
        state = copy.copy(self.state)
        trial.restore(state)
        state.decoder = state.decoder.copy()
        rest: list[int] = []
        if trial.positions:
            audio = mx.concatenate([p.audio for p in trial.positions], axis=1)
            speech = [p.is_speech for p in trial.positions]
            unboosted = TokenDecoder(state, rules=trial.unboosted_rules())
            yield from unboosted.step(audio, speech)
            rest = [one.token_id for one in unboosted.take()]
        trial.compare(rest)

    def _close(self, trial: Trial) -> list[Position]:
        """Commit a trial that is over, or roll back; return what to decode again."""
        self._trial = None
        if trial.state is TrialState.CONFIRMED:
            self._make_certain(trial.ids)
            return []
        trial.restore(self.state)
        self._rules, self._match = trial.rules, trial.match
        self._observe(trial.unboosted.token_id, trial.is_speech, help_given=0.0)
        self._make_certain([trial.unboosted])
        return trial.positions

    def _make_certain(self, ids: Iterable[Decoded]) -> None:
        self._certain += [replace(one, certain_at=self._n_heard) for one in ids]

    def _observe(self, token_id: int, is_speech: bool, help_given: float) -> None:
        for rule in self._rules:
            rule.observe(token_id, is_speech)
        if self._match is not None:
            self._match.observe(token_id, help_given)

    def _decode_one(self, position: Position) -> Steps:
        """Decode one position; its id is certain unless it is on trial."""
        trial = self._trial
        choice, biases = self._choice(position.is_speech)
        (token_id,) = yield DecodeRequest(position.audio, self.state, choice)
        if token_id == NOT_FINITE:
            raise NotFiniteError
        raw, unboosted, chosen, help_given = choice.read()
        guard = None
        if unboosted != raw:
            rule = next(rule for rule, b in biases if raw in b or unboosted in b)
            guard = rule.name
            if rule.min_confidence is not None:
                self._trial = GuardTrial(
                    choice.decoded(raw, None),
                    position.is_speech,
                    *self._kept(),
                    [choice.decoded(unboosted, guard)],
                    min_confidence=rule.min_confidence,
                )
                self._observe(unboosted, position.is_speech, help_given=0.0)
                return
        decoded = choice.decoded(chosen, guard)
        if isinstance(trial, GuardTrial):
            trial.observe(decoded)
            if not self._has_probabilities:
                decoded = Decoded(chosen, guard=guard)
        elif (
            isinstance(trial, HotwordTrial)
            and trial.state is TrialState.COMPLETE
            and chosen != unboosted
        ):
            # Another hot word begins: so far the rest must be the same.
            yield from self._compare(trial)
            if trial.is_rolled_back:
                trial.positions.append(position)
                return
            self._close(trial)
            trial = None
        if trial is not None:
            trial.hold(decoded, position)
        elif chosen != unboosted:
            self._trial = HotwordTrial(
                choice.decoded(unboosted, guard),
                position.is_speech,
                *self._kept(),
                [decoded],
            )
        else:
            self._make_certain([decoded])
        self._observe(chosen, position.is_speech, help_given)
        if isinstance(self._trial, HotwordTrial):
            assert self._match is not None
            self._trial.observe(self._match)

    def _choice(
        self, is_speech: bool
    ) -> tuple[Choice, list[tuple[DecodeRule, Mapping[int, float]]]]:
        """Return how the next id is chosen, and what each rule adds to its logits."""
        trial = self._trial
        is_guards = isinstance(trial, GuardTrial)
        # One trial at a time: while there is one, no guard opens another.
        rules = [r for r in self._rules if trial is None or r.min_confidence is None]
        biases = [(rule, rule.bias(is_speech)) for rule in rules]
        boost: Mapping[int, float] = {}
        if self._match is not None and not is_guards:
            boost = self._match.boost()
        scores = None
        if self._has_probabilities or is_guards:
            scores = Scores(self._n_alternatives)
        return Choice([bias for _, bias in biases if bias], boost, scores), biases

    def _kept(self) -> tuple[DecoderState, list[DecodeRule], HotwordMatch | None]:
        """Return copies of what a trial that opens now may return to."""
        return (
            self.state.decoder.copy(),
            [rule.copy() for rule in self._rules],
            None if self._match is None else self._match.copy(),
        )
