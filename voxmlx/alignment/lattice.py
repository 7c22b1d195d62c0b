"""Every way a model may write a text, as states and edges between them.

States of unit i, of n; the text is done in B or E of unit n:

    B   the units before i are written, and a blank followed
    E   the units before i are written, the last token was text
    M   a WORD stands for unit i
    C   of a spelling of i, some tokens are written; one state for each

An edge is one audio token. It emits PAD, WORD, a token of a spelling, or a FILLER: the
model's own best token that is not PAD, for what the text does not hold.

    B, E -PAD-> B          B, E -WORD-> M          B, E, M -FILLER-> E
    M, E -first token-> C, or E of the next unit   (E: joined without a WORD)
    C -next token-> C, or E of the next unit

In a language without spaces B -first token-> as well. Skips of whole units, for what the
sound does not hold, are no edges: see `path_search.py`.

Example: "turn on" with tokens `turn`, `o`, `n`. The ids PAD WORD turn WORD o n PAD go
B0 B0 M0 E1 M1 C1 E2 B2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxmlx.alignment.units import TextUnit
from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID

__all__ = ["FILLER", "B", "E", "Lattice", "make_lattice"]

# In place of a token id.
FILLER = -1

# Offsets of a unit's states from its first.
B, E, M, _CHAIN = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Lattice:
    """Edges in the order of the states they lead to; a state's first is `first_edge`.

    `first_state[i]` is B of unit i, and one entry more than there are units + 1 ends
    both lists. `unit` is the unit that an edge's token belongs to, or -1.
    """

    n_units: int
    first_state: NDArray[np.int64]
    first_edge: NDArray[np.int64]
    source: NDArray[np.int64]
    token: NDArray[np.int64]
    unit: NDArray[np.int64]
    is_first: NDArray[np.bool_]  # the first token of a spelling

    def unit_of(self, state: int) -> int:
        """Return the unit whose state this is."""
        return int(np.searchsorted(self.first_state, state, side="right")) - 1


def make_lattice(units: Sequence[TextUnit]) -> Lattice:
    """Build the lattice of a text."""
    n_chain = [sum(len(ids) - 1 for ids in unit.spellings) for unit in units]
    sizes = [_CHAIN + n for n in n_chain] + [_CHAIN]
    first_state = np.concatenate([[0], np.cumsum(sizes)])
    first_edge: list[int] = []
    # source, token, unit, whether it is the first token
    edges: list[tuple[int, int, int, bool]] = []
    ends: list[tuple[int, int, int, bool]] = []  # into E of the unit that follows
    for i, unit in enumerate([*units, None]):
        base = int(first_state[i])
        first_edge.append(len(edges))
        edges += [(base + s, STREAMING_PAD_ID, -1, False) for s in (B, E)]
        first_edge.append(len(edges))
        edges += [(base + s, FILLER, -1, False) for s in (B, E, M)]
        edges += ends
        ends = []
        first_edge.append(len(edges))
        edges += [(base + s, STREAMING_WORD_ID, -1, False) for s in (B, E)]
        if unit is None:
            break
        state = base + _CHAIN
        begins = (M, E) if unit.is_spaced else (M, E, B)
        for ids in unit.spellings:
            into = [(base + s, ids[0], i, True) for s in begins]
            for token in ids[1:]:
                first_edge.append(len(edges))
                edges += into
                into = [(state, token, i, False)]
                state += 1
            ends += into
    first_edge.append(len(edges))
    columns = np.array([edge[:3] for edge in edges], np.int64).T
    return Lattice(
        len(units),
        first_state,
        np.array(first_edge, np.int64),
        columns[0],
        columns[1],
        columns[2],
        np.array([edge[3] for edge in edges]),
    )
