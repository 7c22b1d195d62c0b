"""Guesses at the ids to come, which one pass over known sound can verify.

Where the sound is there already, a pass over several positions takes little longer than
a pass over one. But the input of a position is the id before it. So guesses stand for
the ids in between; what follows the first wrong one is trimmed from the rings.

One turn of the loop (`DecodeRequest`):

    guessing    `guess(n)` gives at most n ids, by n-grams of the stream's own ids
      empty ->  single positions: `n_unread` of them are queued before any id is read
      else  ->  one pass over 1 + len(guesses) positions
    verifying   the ids up to the first that was guessed wrong are taken
    learning    `observe(ids)` for the n-grams, `passed(...)` for the costs

Invariants: no id of a stream depends on its guesses, but for a near tie, which the last
bits decide; what is remembered has a bound; this file has no clock: who owns the loop
hands one in. With a fixed `n_guesses` none is read, so a run can be repeated pass by
pass.

Example: a pass over 1 position takes 10 ms and one over 4 takes 12 ms. The last 40 ids
are PAD, so each of the next three is PAD with a chance of 0.9. Three guesses
promise 1 + 0.9 + 0.81 + 0.73 = 3.4 ids in 12 ms: 287 a second. Without any there
are 100. More than 1.1 times as many is worth it: the guesses are PAD PAD PAD. If WORD
comes third, the pass gives PAD PAD WORD, and the last position is trimmed.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Protocol

from voxmlx.config import STREAMING_PAD_ID
from voxmlx.errors import SessionError

__all__ = ["MAX_POSITIONS", "Guesses", "Speculation"]

# Positions one pass may verify; few different numbers, so that each is soon known.
_LENGTHS = (2, 3, 4, 6, 8, 12, 16)
MAX_POSITIONS = _LENGTHS[-1]

# A stream has no end, so what it remembers of its ids must have one.
_MAX_CONTEXTS = 8192
_MAX_FOLLOWERS = 64
_MAX_RUN = 24

# Guessed before anything is known: most ids are blanks.
_FIRST_GUESS = (STREAMING_PAD_ID, 0.5)
# Guesses less likely than this to be reached are not worth the time to make them.
_LEAST_CHANCE = 0.05
_MAX_UNREAD = 8
# So much a pass may seem to gain before it is worth waiting for its ids.
_LEAST_GAIN = 1.1


class Guesses(Protocol):
    """A maker of guesses, as `DecodeRequest` asks it; see `Speculation`."""

    def guess(self, n: int, /) -> list[int]: ...
    def now(self) -> float | None: ...
    @property
    def n_unread(self) -> int: ...
    def observe(self, ids: Iterable[int], /) -> None: ...
    def passed(
        self, n_positions: int, n_chosen: int, seconds: float | None, /
    ) -> None: ...


class _Context(NamedTuple):
    """What the next id is guessed from."""

    recent: tuple[int, ...] = ()  # the last four ids
    text: tuple[int, ...] = ()  # the last two that are no blanks
    run: int = 0  # blanks since

    def after(self, token_id: int) -> "_Context":
        recent = (*self.recent[-3:], token_id)
        if token_id == STREAMING_PAD_ID:
            return _Context(recent, self.text, min(self.run + 1, _MAX_RUN))
        return _Context(recent, (*self.text[-1:], token_id), 0)

    def grams(self) -> tuple[tuple[object, ...], ...]:
        """Return the contexts to look up, from the longest to the shortest."""
        return (
            (self.recent,),
            (self.text, self.run),
            (self.recent[-2:],),
            (self.run,),
        )


class Speculation:
    """One stream's guesses: n-grams of its own ids so far, most of them blanks.

    How many it makes at a time follows from how often they came true and from what
    passes of so many positions took: as many as promise the most ids per second
    (Leviathan et al. 2023, arXiv:2211.17192, choose a fixed number by the same
    ratio). Which ids a stream has never depends on it.
    """

    def __init__(
        self,
        clock: Callable[[], float] | None = None,
        *,
        n_guesses: int | None = None,
    ) -> None:
        """`clock` gives seconds, as `time.perf_counter` does.

        With `n_guesses` so many are guessed each time, where so many positions are
        left, and no clock is read: a run can be repeated exactly. Without both, no
        guess is made until `passed` tells what passes take. Raises SessionError for a
        length that is not 1 to MAX_POSITIONS - 1.
        """
        if n_guesses is not None and not 1 <= n_guesses < MAX_POSITIONS:
            raise SessionError(
                f"n_guesses is {n_guesses}, expected 1 to {MAX_POSITIONS - 1}"
            )
        self._clock = clock if n_guesses is None else None
        self._n_guesses = n_guesses
        self._followers: OrderedDict[tuple[object, ...], Counter[int]] = OrderedDict()
        self._context = _Context()
        self._costs = _Costs()
        self._n_unguessed = 0
        self.n_passes = 0
        self.n_guessed = 0
        self.n_accepted = 0

    def for_another_stream(self) -> "Speculation":
        """Return a new one with the same clock or number of guesses."""
        return Speculation(self._clock, n_guesses=self._n_guesses)

    def guess(self, n: int) -> list[int]:
        """Return at most n ids that may come next; none where that would not pay."""
        if self._n_guesses is not None:
            n = min(n, self._n_guesses)
            return [token_id for token_id, _ in islice(self._guesses(), n)]
        # A count without end would grow with the stream.
        self._n_unguessed = min(self._n_unguessed + 1, _MAX_UNREAD)
        if not self._costs.is_known:
            return []
        guesses: list[int] = []
        expected, n_best = 1.0, 0
        best = _LEAST_GAIN / self._costs.seconds(1)
        for token_id, chance in islice(self._guesses(), min(n, MAX_POSITIONS - 1)):
            if chance < _LEAST_CHANCE:
                break
            guesses.append(token_id)
            expected += chance
            if 1 + len(guesses) not in _LENGTHS:
                continue
            rate = expected / self._costs.seconds(1 + len(guesses))
            if rate > best:
                best, n_best = rate, len(guesses)
        if n_best:
            self._n_unguessed = 0
        return guesses[:n_best]

    def now(self) -> float | None:
        """Return the clock's seconds; None without a clock."""
        return None if self._clock is None else self._clock()

    @property
    def n_unread(self) -> int:
        """Ids to let pass before guesses are made again, after none paid.

        The more of them were, the more: to wait for an id costs time as well.
        """
        return min(2 ** max(0, self._n_unguessed - 1), _MAX_UNREAD)

    def observe(self, ids: Iterable[int]) -> None:
        """The ids that came next."""
        for token_id in ids:
            for key in self._context.grams():
                followers = self._followers.setdefault(key, Counter())
                followers[token_id] += 1
                if len(followers) > _MAX_FOLLOWERS:
                    common = followers.most_common(_MAX_FOLLOWERS // 2)
                    self._followers[key] = Counter(dict(common))
                self._followers.move_to_end(key)
            self._context = self._context.after(token_id)
        while len(self._followers) > _MAX_CONTEXTS:
            self._followers.popitem(last=False)

    def passed(self, n_positions: int, n_chosen: int, seconds: float | None) -> None:
        """A pass over so many positions took so long and made so many ids certain.

        Without `seconds` it is counted, and says nothing about the next.
        """
        if seconds is not None:
            self._costs.note(n_positions, seconds)
        self.n_passes += 1
        self.n_guessed += n_positions - 1
        self.n_accepted += max(0, n_chosen - 1)

    def _guesses(self) -> Iterator[tuple[int, float]]:
        """Ids to come, with the chance that all up to each are right."""
        context, chance = self._context, 1.0
        while True:
            token_id, probability = self._guess(context)
            chance *= probability
            yield token_id, chance
            context = context.after(token_id)

    def _guess(self, context: _Context) -> tuple[int, float]:
        for key in context.grams():
            followers = self._followers.get(key)
            if followers and (total := followers.total()) > 1:
                token_id, n = followers.most_common(1)[0]
                return token_id, n / (total + 1)
        return _FIRST_GUESS


class _Costs:
    """Seconds that passes take, by their number of positions.

    Judged by the quickest of the last few: what interrupts a pass says nothing about
    the next. One that was not made for long is a guess again.
    """

    _N_KEPT = 4
    _STALE_AFTER = 256  # passes
    # A position more is believed to add this much of a pass, until it was measured.
    _SHARE = 0.02

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        self._made: dict[int, int] = {}
        self._n_passes = 0

    def note(self, n_positions: int, seconds: float) -> None:
        kept = self._seconds.setdefault(n_positions, deque(maxlen=self._N_KEPT))
        kept.append(seconds)
        self._n_passes += 1
        self._made[n_positions] = self._n_passes
        for n, made in list(self._made.items()):
            if n > 1 and self._n_passes - made > self._STALE_AFTER:
                del self._made[n], self._seconds[n]

    def seconds(self, n_positions: int) -> float:
        """Estimate the seconds of a pass over `n_positions`; a pass over 1 was made before."""
        known = {n: min(kept) for n, kept in self._seconds.items()}
        low = max(n for n in known if n <= n_positions)
        guess = known[low] * (1 + self._SHARE * (n_positions - low))
        # More positions never take less.
        longer = [seconds for n, seconds in known.items() if n >= n_positions]
        return min([guess, *longer] if low < n_positions else longer)

    @property
    def is_known(self) -> bool:
        """Return whether the time of a pass over one position is known."""
        return 1 in self._seconds
