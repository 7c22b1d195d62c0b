"""Trials: ids are held back until they are confirmed or rolled back.

A boost, or a guard that brings text out, may be wrong: only what follows shows it. So
a trial opens where one of them changes an id. From there on ids are held back. The
trial keeps the unboosted id, which the stream had without them. It also keeps the
decoder's state, rules and match as they were, to return to.

States:

    open         what shows whether the change was right is still to come
    complete     a phrase is complete, and the ids after it are collected
    confirmed    commit: the ids held back stand
    rolled back  rollback: the unboosted id stands, and what was kept returns; the
                 positions after it are decoded again

Transitions of a hot word's trial:

    from      when                                            to
    open      an id goes on with the phrase                   open
    open      an id follows the phrase's last word            complete
    open      an id breaks the phrase, or 65 ids are held     rolled back
    open      the stream ends                                 rolled back
    complete  fewer than 12 ids follow the phrase             complete
    complete  12 ids follow, or a boost changes another id,
              or the stream ends; then the same positions
              are decoded without boosts, and both differ
                - by the phrase alone                         confirmed
                - by anything else                            rolled back

Transitions of a guard's trial, a WORD in place of a PAD:

    open      the next id is text that is probable enough     confirmed
    open      it is anything else, or the stream ends         rolled back

Example, hot word "Voxtral": at position 20 " fox" leads " vox" by 1.5 logits. A boost of
2.0 chooses " vox", and a trial opens; its unboosted id is " fox". Position 21 is "tral".
Position 22 is PAD: the phrase is complete and has 2 ids. At position 33 the trial holds
14 ids, 12 of them after the phrase. Positions 21 to 33 are decoded again from the kept
state, after " fox". The words are "foxtrail is" without boosts and "voxtral is" with
them. They differ by the phrase alone, so the 14 ids come out together, the first of
them 13 positions (1.04 s) late. With "voxtral it" the trial is rolled back: " fox"
stands at position 20, and positions 21 to 33 are decoded again.

Invariants: a stream has at most one trial. None of its ids is out. It holds one position
less than ids: that of the first id is in the state it keeps. It is over after 76 ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import log

import mlx.core as mx

from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.decoding.decoded import Decoded
from voxmlx.decoding.hotwords import HotwordMatch
from voxmlx.decoding.rules import DecodeRule
from voxmlx.model.decoder import DecoderState
from voxmlx.model.state import VoxtralState

__all__ = [
    "MAX_HELD",
    "REST_TOKENS",
    "GuardTrial",
    "HotwordTrial",
    "Position",
    "Trial",
    "TrialState",
]

# Ids held back while the phrase is not complete.
MAX_HELD = 64
# Ids after a phrase that show whether the rest is what it would have been.
REST_TOKENS = 12


class TrialState(Enum):
    """The states of a trial; the module has the table of transitions."""

    OPEN = "open"
    COMPLETE = "complete"
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True, slots=True)
class Position:
    """An audio token's embedding [1, 1, dim], and whether there was speech."""

    audio: mx.array
    is_speech: bool


@dataclass
class Trial:
    """Ids held back from the first that was changed on, and what to return to."""

    unboosted: Decoded  # the first id, had nothing changed it
    is_speech: bool  # at the first position
    # Of the first position: the decoder after it, the others before its id.
    decoder: DecoderState
    rules: list[DecodeRule]
    match: HotwordMatch | None
    ids: list[Decoded]
    positions: list[Position] = field(default_factory=list[Position])  # but the first
    state: TrialState = TrialState.OPEN

    @property
    def is_over(self) -> bool:
        """Return whether its ids stand, or do not."""
        return self.state in (TrialState.CONFIRMED, TrialState.ROLLED_BACK)

    @property
    def is_rolled_back(self) -> bool:
        """Return whether the unboosted id stands."""
        return self.state is TrialState.ROLLED_BACK

    def arrays(self) -> list[mx.array]:
        """Return all arrays that are computed on the device."""
        return self.decoder.arrays() + [p.audio for p in self.positions]

    def hold(self, decoded: Decoded, position: Position) -> None:
        """Hold the next id back."""
        self.ids.append(decoded)
        self.positions.append(position)

    def end(self) -> None:
        """Roll an open trial back at the end of the stream."""
        assert self.state is TrialState.OPEN
        self.state = TrialState.ROLLED_BACK

    def restore(self, state: VoxtralState) -> None:
        """Set `state` back to the first position, with the unboosted id."""
        state.decoder = self.decoder
        state.token = mx.array([[self.unboosted.token_id]], mx.int32)


@dataclass
class HotwordTrial(Trial):
    """A trial that a boost opened."""

    n_phrase: int | None = None  # ids up to the phrase's last, once it is complete

    @property
    def is_due(self) -> bool:
        """Return whether enough ids follow the phrase to compare them."""
        if self.state is not TrialState.COMPLETE:
            return False
        assert self.n_phrase is not None
        return len(self.ids) >= self.n_phrase + REST_TOKENS

    def observe(self, match: HotwordMatch) -> None:
        """Follow the match, which has seen the last id that is held."""
        if self.state is not TrialState.OPEN:
            return
        # A phrase that is complete with the first id is the one before it.
        if match.is_complete and len(self.ids) > 1:
            # It took the last id to know that the phrase is complete.
            self.n_phrase = len(self.ids) - 1
            self.state = TrialState.COMPLETE
        elif match.is_broken or len(self.ids) > MAX_HELD:
            self.state = TrialState.ROLLED_BACK

    def unboosted_rules(self) -> list[DecodeRule]:
        """Return independent rules that have seen the unboosted id."""
        rules = [rule.copy() for rule in self.rules]
        for rule in rules:
            rule.observe(self.unboosted.token_id, self.is_speech)
        return rules

    def compare(self, rest: Sequence[int]) -> None:
        """Confirm or roll back, by the ids that `positions` have without boosts."""
        assert self.state is TrialState.COMPLETE
        assert self.n_phrase is not None
        assert self.match is not None
        is_same = self.match.trie.keeps_rest(
            [self.unboosted.token_id, *rest],
            [one.token_id for one in self.ids],
            self.n_phrase,
            is_inside=self.match.is_inside_word,
        )
        self.state = TrialState.CONFIRMED if is_same else TrialState.ROLLED_BACK


@dataclass
class GuardTrial(Trial):
    """A trial that a guard opened with a WORD in place of a PAD."""

    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        # From a PAD on, text begins with a WORD: anything else is no word heard.
        if self.ids[0].token_id != STREAMING_WORD_ID:
            self.state = TrialState.ROLLED_BACK

    def observe(self, decoded: Decoded) -> None:
        """Confirm or roll back, by the id after the WORD and its probability."""
        is_text = decoded.token_id not in (STREAMING_PAD_ID, STREAMING_WORD_ID)
        assert decoded.logprob is not None
        if is_text and decoded.logprob >= log(self.min_confidence):
            self.state = TrialState.CONFIRMED
        else:
            self.state = TrialState.ROLLED_BACK

    def restore(self, state: VoxtralState) -> None:
        """Do as any trial, and tell the guard that it was refused."""
        super().restore(state)
        for rule in self.rules:
            if rule.min_confidence is not None:
                rule.refused()
