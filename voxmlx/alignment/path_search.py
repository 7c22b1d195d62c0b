"""The best path of a stream through a text's lattice, in bounded memory.

Viterbi's algorithm, one audio token at a time. Three things bound it:

    beam    states far behind the best one are given up
    band    units are looked at up to so many beyond those that are reached
    merge   where all paths that are left come from one state, what is before is certain,
            and handed out; after MAX_PENDING tokens the best path's is taken for it

Skips: before each audio token, B and E of a unit may be reached from those of a unit
before, for a price. So a path leaves out what the sound does not hold.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxmlx.alignment.lattice import FILLER, B, E, Lattice

__all__ = ["MAX_PENDING", "PathSearch", "PathStep"]

# Logits in nats. A model is never sure beyond the first, and a path that is so far
# behind does not come back.
_BEAM = 60.0
_BAND_UNITS = 100

# What a token costs that the text does not hold, a skip, and each further unit of it.
FILLER_COST, SKIP_COST, SKIP_MORE_COST = 2.0, 4.0, 0.5

# Audio tokens: when paths are traced, and how long they may differ (two minutes).
_TRACED_EVERY, MAX_PENDING = 25, 1500


@dataclass(frozen=True, slots=True)
class PathStep:
    """One audio token of the path: its id, and what of the text it is.

    `unit` is the unit whose token it is, or None for PAD, WORD and a filler. `skipped`
    are units before it that the sound does not hold.
    """

    token_id: int
    logprob: float
    unit: int | None = None
    is_first: bool = False
    is_filler: bool = False
    skipped: range = range(0)


@dataclass(frozen=True, slots=True)
class _Step:
    """What is needed to trace one audio token back."""

    first_state: int
    edges: NDArray[np.int64]  # by state: the best edge into it, or -1
    origins: NDArray[np.int64]  # [2, units]: unit that B and E were reached from
    first_unit: int
    logprobs: Mapping[int, float]
    filler: int


class PathSearch:
    """Viterbi over a lattice; `push` takes log-probabilities, `take` what is certain."""

    def __init__(self, lattice: Lattice) -> None:
        self._lattice = lattice
        self._units = (0, min(lattice.n_units, _BAND_UNITS) + 1)
        self._scores = np.full(self._n_states(), -np.inf)
        self._scores[B] = 0.0
        self._steps: deque[_Step] = deque()
        self._n_pushed = 0
        self._certain: list[PathStep] = []
        self._tokens: NDArray[np.int64] | None = None

    @property
    def token_ids(self) -> NDArray[np.int64]:
        """Return the ids whose log-probabilities the next `push` needs."""
        if self._tokens is None:
            first, last = self._edge_range()
            tokens = np.unique(self._lattice.token[first:last])
            self._tokens = tokens[tokens != FILLER]
        return self._tokens

    def push(
        self, logprobs: NDArray[np.float32], filler: int, filler_logprob: float
    ) -> int:
        """Take the next audio token: log-probabilities of `token_ids`, in order.

        `filler` is the best id that is not PAD. Returns the id of the best path.
        """
        lattice = self._lattice
        tokens = self.token_ids
        first_unit, end_unit = self._units
        low = int(lattice.first_state[first_unit])
        high = int(lattice.first_state[end_unit])
        origins = self._skip()
        first, last = self._edge_range()
        source = lattice.source[first:last] - low
        scores = np.append(self._scores, -np.inf)
        values = scores[np.where(source < 0, len(self._scores), source)]
        token = lattice.token[first:last]
        is_filler = token == FILLER
        places = np.minimum(np.searchsorted(tokens, token), len(tokens) - 1)
        values = values + np.where(
            is_filler, filler_logprob - FILLER_COST, logprobs[places]
        )
        begins = lattice.first_edge[low:high] - first
        best = np.maximum.reduceat(values, begins)
        counts = np.diff(np.append(begins, last - first))
        is_best = values == np.repeat(best, counts)
        places = np.where(is_best, np.arange(last - first), last - first)
        edges = np.minimum.reduceat(places, begins) + first
        top = best.max()
        best[best < top - _BEAM] = -np.inf
        edges[best == -np.inf] = -1
        known = dict(zip(tokens.tolist(), logprobs.tolist(), strict=True))
        known[FILLER] = filler_logprob
        self._steps.append(_Step(low, edges, origins, first_unit, known, filler))
        self._scores = best - top
        chosen = int(lattice.token[edges[int(best.argmax())]])
        self._narrow()
        self._n_pushed += 1
        if self._n_pushed % _TRACED_EVERY == 0:
            self._merge()
        return filler if chosen == FILLER else chosen

    def take(self) -> list[PathStep]:
        """Return the steps that became certain since the last call, in order."""
        certain, self._certain = self._certain, []
        return certain

    def end(self) -> range:
        """Choose the best path; return the units at the end that it leaves out."""
        lattice = self._lattice
        first_unit, end_unit = self._units
        low = int(lattice.first_state[first_unit])
        best, state, unit = -np.inf, low, first_unit
        for i in range(first_unit, end_unit):
            n_skipped = lattice.n_units - i
            cost = SKIP_COST + SKIP_MORE_COST * (n_skipped - 1) if n_skipped else 0.0
            for kind in (B, E):
                place = int(lattice.first_state[i]) - low + kind
                if self._scores[place] - cost > best:
                    best, state, unit = self._scores[place] - cost, place + low, i
        if best == -np.inf:  # in the middle of a word
            state = low + int(self._scores.argmax())
            unit = min(lattice.unit_of(state) + 1, lattice.n_units)
        self._certain += self._traced(state, len(self._steps))
        self._steps.clear()
        return range(unit, lattice.n_units)

    def _n_states(self) -> int:
        first, end = self._units
        return int(self._lattice.first_state[end] - self._lattice.first_state[first])

    def _edge_range(self) -> tuple[int, int]:
        lattice = self._lattice
        first, end = self._units
        low, high = lattice.first_state[first], lattice.first_state[end]
        return int(lattice.first_edge[low]), int(lattice.first_edge[high])

    def _skip(self) -> NDArray[np.int64]:
        """Let B and E be reached from units before; return which for each."""
        first, end = self._units
        units = np.arange(first, end)
        places = self._lattice.first_state[first:end] - self._lattice.first_state[first]
        origins = np.tile(units, (2, 1))
        for kind in (B, E):
            scores = self._scores[places + kind]
            rising = scores + SKIP_MORE_COST * units
            best = np.maximum.accumulate(rising)
            holder = np.maximum.accumulate(np.where(rising == best, units, first))
            skipped = np.full(len(units), -np.inf)
            skipped[1:] = best[:-1] - SKIP_MORE_COST * (units[1:] - 1) - SKIP_COST
            is_better = skipped > scores
            self._scores[places + kind] = np.where(is_better, skipped, scores)
            origins[kind, 1:][is_better[1:]] = holder[:-1][is_better[1:]]
        return origins

    def _narrow(self) -> None:
        """Move the band to the units that are reached."""
        lattice = self._lattice
        first, end = self._units
        low = int(lattice.first_state[first])
        alive = np.flatnonzero(self._scores > -np.inf) + low
        new_first, last = lattice.unit_of(alive[0]), lattice.unit_of(alive[-1])
        new_end = min(lattice.n_units, last + _BAND_UNITS) + 1
        if (new_first, new_end) == (first, end):
            return
        new_low = int(lattice.first_state[new_first])
        n = int(lattice.first_state[new_end]) - new_low
        scores = np.full(n, -np.inf)
        kept = self._scores[new_low - low :][:n]
        scores[: len(kept)] = kept
        self._scores, self._units, self._tokens = scores, (new_first, new_end), None

    def _merge(self) -> None:
        low = int(self._lattice.first_state[self._units[0]])
        states = np.flatnonzero(self._scores > -np.inf) + low
        if len(self._steps) >= MAX_PENDING:
            # All but the paths that share the best one's past are given up.
            n = len(self._steps) // 2
            best = low + int(self._scores.argmax())
            past = self._back(np.array([best]), n)[0]
            pasts = self._back(states, n)
            self._scores[states[pasts != past] - low] = -np.inf
            states = states[pasts == past]
        for n in range(len(self._steps) - 1, -1, -1):
            states = np.unique(self._back_one(states, self._steps[n]))
            if len(states) == 1:
                self._certain += self._traced(int(states[0]), n)
                for _ in range(n):
                    self._steps.popleft()
                return

    def _back(self, states: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Return for each state the one it came from after `n` steps."""
        for i in range(len(self._steps) - 1, n - 1, -1):
            states = self._back_one(states, self._steps[i])
        return states

    def _back_one(self, states: NDArray[np.int64], step: _Step) -> NDArray[np.int64]:
        """Return the states before a step, skips undone."""
        lattice = self._lattice
        sources = lattice.source[step.edges[states - step.first_state]]
        units = np.searchsorted(lattice.first_state, sources, side="right") - 1
        kinds = sources - lattice.first_state[units]
        can_skip = kinds <= E
        rows = np.where(can_skip, kinds, 0)
        origins = step.origins[rows, units - step.first_unit]
        return np.where(can_skip, lattice.first_state[origins] + kinds, sources)

    def _traced(self, state: int, n: int) -> list[PathStep]:
        """Return the first `n` steps of the path that is in `state` after them."""
        lattice = self._lattice
        found: list[PathStep] = []
        for i in range(n - 1, -1, -1):
            step = self._steps[i]
            edge = int(step.edges[state - step.first_state])
            source = int(lattice.source[edge])
            state = int(self._back_one(np.array([state]), step)[0])
            token, unit = int(lattice.token[edge]), int(lattice.unit[edge])
            found.append(
                PathStep(
                    step.filler if token == FILLER else token,
                    step.logprobs[token],
                    None if unit < 0 else unit,
                    bool(lattice.is_first[edge]),
                    token == FILLER,
                    range(lattice.unit_of(state), lattice.unit_of(source)),
                )
            )
        return found[::-1]
