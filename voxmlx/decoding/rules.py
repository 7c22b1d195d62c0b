"""Guards of the decoding loop: what they watch for and how they push back."""

import copy
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Protocol

from voxmlx.config import STREAMING_PAD_ID

__all__ = [
    "GUARDS",
    "DecodeRule",
    "PadRunGuard",
    "RepetitionGuard",
    "make_guards",
]


class DecodeRule(Protocol):
    """Watches one stream's ids and may add to the logits of the next one.

    A rule that is idle costs nothing: the decoding loop goes on for as many tokens
    as all rules promise to leave alone before it reads an id back.
    """

    name: str
    # Where a rule brings text out that the model would have held back, the text must
    # be at least so probable; None where a rule only takes text away.
    min_confidence: ClassVar[float | None]

    def idle_tokens(self) -> int:
        """Return how many of the coming ids the rule will certainly leave alone."""
        ...

    def bias(self, is_speech: bool) -> Mapping[int, float]:
        """Return the amount to add to each logit of the next id."""
        ...

    def observe(self, token_id: int, is_speech: bool) -> None:
        """The id that was chosen."""
        ...

    def refused(self) -> None:
        """Note that the id which the rule brought out was rolled back."""
        ...

    def copy(self) -> "DecodeRule":
        """An independent rule that goes on from here."""
        ...


class PadRunGuard:
    """Frees a decoder that answers speech with nothing but PAD tokens.

    In such a run PAD leads the next best id by 3.5 to 6.6 logits, in true silence by
    8.5 or more. A penalty that grows to 7 breaks the one and not the other. Only PAD
    tokens while somebody seems to speak count and are penalized: healthy pauses are as
    long as they like. At most 214 of them (17 s) pass before the full penalty.

    In noise and music the lead can be as small, so the lead alone proves nothing. What
    the penalty brings out is a WORD, and the text after it shows whether the model has
    heard one: in speech the first id of that text has a probability of 0.9 or more, in
    noise 0.1, in music 0.4 (the demo). Below `min_confidence` the WORD is rolled back,
    and the guard waits: 3 tokens at first, then twice as long each time, up to 2 s.
    """

    name = "pad_run"
    patience_tokens = 200
    slope = 0.5
    max_penalty = 7.0
    min_confidence: ClassVar[float | None] = 0.5
    min_wait_tokens, max_wait_tokens = 3, 24

    def __init__(self) -> None:
        self._n_pad = 0
        self._n_wait = 0
        self._next_wait = self.min_wait_tokens

    def idle_tokens(self) -> int:
        return max(0, self.patience_tokens + 1 - self._n_pad, self._n_wait)

    def bias(self, is_speech: bool) -> Mapping[int, float]:
        excess = self._n_pad - self.patience_tokens
        if excess <= 0 or self._n_wait or not is_speech:
            return {}
        return {STREAMING_PAD_ID: -min(self.max_penalty, self.slope * excess)}

    def observe(self, token_id: int, is_speech: bool) -> None:
        self._n_wait = max(0, self._n_wait - 1)
        if token_id != STREAMING_PAD_ID:
            self._n_pad = 0
            self._next_wait = self.min_wait_tokens
        elif is_speech:
            # A count without end would grow with the stream.
            self._n_pad = min(self._n_pad + 1, 2 * self.patience_tokens)

    def refused(self) -> None:
        self._n_wait = self._next_wait
        self._next_wait = min(2 * self._next_wait, self.max_wait_tokens)

    def copy(self) -> "PadRunGuard":
        return copy.copy(self)


class RepetitionGuard:
    """Breaks loops in which a decoder writes the same ids again and again.

    Nobody speaks so fast that ids come without a single blank for long; who repeats
    a word leaves blanks between. So only ids in an unbroken row count: once the last
    32 (or three periods, if that is more) repeat those one period before, the id
    that would go on with the loop is penalised, each time more.
    """

    name = "repetition"
    min_confidence: ClassVar[float | None] = None
    max_period = 16
    min_repeated = 32  # so that the loop may always take its biggest step
    min_periods = 3
    slope = 2.0
    max_penalty = 20.0

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=self.max_period)
        # How many ids in a row equal the one so many places before: per period.
        self._n_repeated = [0] * self.max_period

    def _threshold(self, period: int) -> int:
        return max(self.min_repeated, self.min_periods * period)

    def idle_tokens(self) -> int:
        left = (
            self._threshold(i + 1) - n_repeated
            for i, n_repeated in enumerate(self._n_repeated)
        )
        return max(0, min(left))

    def bias(self, is_speech: bool) -> Mapping[int, float]:
        del is_speech  # a loop is a loop
        bias: dict[int, float] = {}
        for i, n_repeated in enumerate(self._n_repeated):
            excess = n_repeated - self._threshold(i + 1) + 1
            if excess > 0:
                penalty = -min(self.max_penalty, self.slope * excess)
                token_id = self._recent[-1 - i]
                bias[token_id] = min(bias.get(token_id, 0.0), penalty)
        return bias

    def observe(self, token_id: int, is_speech: bool) -> None:
        if token_id == STREAMING_PAD_ID:
            if self._recent:
                self._recent.clear()
                self._n_repeated = [0] * self.max_period
            return
        recent = self._recent
        for i in range(self.max_period):
            is_repeated = i < len(recent) and recent[-1 - i] == token_id
            n = self._n_repeated[i] + 1 if is_repeated else 0
            self._n_repeated[i] = min(n, 1000)
        recent.append(token_id)

    def refused(self) -> None:
        """Nothing to do: it brings nothing out."""

    def copy(self) -> "RepetitionGuard":
        twin = RepetitionGuard()
        twin._recent = self._recent.copy()
        twin._n_repeated = list(self._n_repeated)
        return twin


GUARDS: Mapping[str, Callable[[], DecodeRule]] = {
    PadRunGuard.name: PadRunGuard,
    RepetitionGuard.name: RepetitionGuard,
}

# Names of earlier versions.
_RENAMED = {"blank_rut": PadRunGuard.name}
BlankRutGuard = PadRunGuard


def make_guards(names: Iterable[str]) -> list[DecodeRule]:
    """Return a guard for every name, each once.

    Warns of a name that has changed. Raises ValueError for one that is unknown.
    """
    chosen: dict[str, DecodeRule] = {}
    for name in names:
        known = _RENAMED.get(name, name)
        if known not in GUARDS:
            raise ValueError(f"guard {name!r} is unknown; use {', '.join(GUARDS)}")
        if known != name:
            warnings.warn(
                f"the guard {name!r} is called {known!r} now",
                DeprecationWarning,
                stacklevel=4,
            )
        chosen[known] = GUARDS[known]()
    return list(chosen.values())
