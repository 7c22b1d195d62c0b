"""The path through a text is the best there is, and is found in bounded memory."""

from functools import cache

import numpy as np
import pytest

from voxmlx.alignment import path_search
from voxmlx.alignment.lattice import make_lattice
from voxmlx.alignment.path_search import (
    FILLER_COST,
    SKIP_COST,
    SKIP_MORE_COST,
    PathSearch,
    PathStep,
)
from voxmlx.alignment.units import TextUnit
from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID

PAD, WORD, OTHER = STREAMING_PAD_ID, STREAMING_WORD_ID, 50
VOCABULARY = (PAD, WORD, OTHER, 60, 61, 62, 63)
UNITS = [
    TextUnit("ab", " ", ((60, 61),), True),
    TextUnit("c", " ", ((62,), (63, 61)), True),
    TextUnit("d", "", ((63,),), False),
]


def best_score(units: list[TextUnit], logprobs: list[dict[int, float]]) -> float:
    """Return the score of the best path, by trying everything."""
    fillers = [max(v for k, v in row.items() if k != PAD) for row in logprobs]

    def skipped(n: int) -> float:
        return SKIP_COST + SKIP_MORE_COST * (n - 1) if n else 0.0

    @cache
    def rest(t: int, i: int, kind: str, tokens: tuple[int, ...]) -> float:
        """Of a path that is there: in the middle of a spelling, `tokens` follow."""
        if t == len(logprobs):
            return -skipped(len(units) - i) if kind in "BE" else -np.inf
        row, found = logprobs[t], [-np.inf]
        if kind == "C":
            return row[tokens[0]] + after(t, i, tokens[1:])
        places = range(i, len(units) + 1) if kind in "BE" else (i,)
        for j in places:
            cost = skipped(j - i)
            if kind in "BE":
                found.append(row[PAD] + rest(t + 1, j, "B", ()) - cost)
                found.append(row[WORD] + rest(t + 1, j, "M", ()) - cost)
            found.append(fillers[t] - FILLER_COST + rest(t + 1, j, "E", ()) - cost)
            if j == len(units) or (kind == "B" and units[j].is_spaced):
                continue
            for ids in units[j].spellings:
                found.append(row[ids[0]] + after(t, j, ids[1:]) - cost)
        return max(found)

    def after(t: int, i: int, tokens: tuple[int, ...]) -> float:
        if tokens:
            return rest(t + 1, i, "C", tokens)
        return rest(t + 1, i + 1, "E", ())

    return rest(0, 0, "B", ())


def score_of(steps: list[PathStep], at_end: range) -> float:
    total = 0.0
    for step in steps:
        total += step.logprob - FILLER_COST * step.is_filler
        if step.skipped:
            total -= SKIP_COST + SKIP_MORE_COST * (len(step.skipped) - 1)
    if at_end:
        total -= SKIP_COST + SKIP_MORE_COST * (len(at_end) - 1)
    return total


def searched(
    units: list[TextUnit], logprobs: list[dict[int, float]]
) -> tuple[list[PathStep], range]:
    search = PathSearch(make_lattice(units))
    steps: list[PathStep] = []
    for row in logprobs:
        known = np.array([row[i] for i in search.token_ids.tolist()], np.float32)
        filler = max((k for k in row if k != PAD), key=row.__getitem__)
        search.push(known, filler, row[filler])
        steps += search.take()
    at_end = search.end()
    return steps + search.take(), at_end


def rows(rng: np.random.Generator, n: int, sharpness: float) -> list[dict[int, float]]:
    logits = rng.normal(0, sharpness, (n, len(VOCABULARY)))
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return [
        dict(zip(VOCABULARY, row, strict=True))
        for row in logprobs.astype(np.float32).tolist()
    ]


def units_in(steps: list[PathStep], at_end: range) -> list[int]:
    found: list[int] = []
    for step in steps:
        found += step.skipped
        if step.is_first:
            assert step.unit is not None
            found.append(step.unit)
    return [*found, *at_end]


@pytest.mark.parametrize("seed", range(30))
def test_no_path_is_better_than_the_one_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logprobs = rows(rng, 9, 1 + seed % 5)
    steps, at_end = searched(UNITS, logprobs)
    assert len(steps) == 9
    assert units_in(steps, at_end) == [0, 1, 2]
    expected = best_score(UNITS, logprobs)
    assert score_of(steps, at_end) == pytest.approx(expected, abs=1e-4)


def told(*ids: int) -> list[dict[int, float]]:
    """Log-probabilities of a model that is sure of these ids."""
    return [{i: -0.01 if i == one else -9.0 for i in VOCABULARY} for one in ids]


def test_ids_of_the_text_are_its_path() -> None:
    steps, at_end = searched(UNITS, told(PAD, WORD, 60, 61, WORD, 63, 61, 63, PAD))
    assert [step.unit for step in steps] == [None, None, 0, 0, None, 1, 1, 2, None]
    assert not any(step.is_filler for step in steps)
    assert list(at_end) == []


def test_what_the_sound_does_not_hold_is_skipped() -> None:
    steps, at_end = searched(UNITS, told(WORD, 60, 61, PAD, WORD, 63, PAD))
    assert [step.unit for step in steps if step.unit is not None] == [0, 0, 2]
    assert units_in(steps, at_end) == [0, 1, 2]
    steps, at_end = searched(UNITS, told(WORD, 60, 61, PAD, WORD, 62, PAD))
    assert [step.unit for step in steps if step.unit is not None] == [0, 0, 1]
    assert list(at_end) == [2]


def test_what_the_text_does_not_hold_is_filler() -> None:
    ids = (WORD, 60, 61, PAD, WORD, OTHER, OTHER, PAD, WORD, 62, 63, PAD)
    steps, at_end = searched(UNITS, told(*ids))
    assert [s.token_id for s in steps if s.is_filler][-2:] == [OTHER, OTHER]
    assert units_in(steps, at_end) == [0, 1, 2]
    assert not any(step.skipped for step in steps)


def test_paths_that_never_agree_are_decided_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(path_search, "MAX_PENDING", 100)
    units = UNITS * 40
    search = PathSearch(make_lattice(units))
    flat = {i: -np.log(len(VOCABULARY)) for i in VOCABULARY}
    steps: list[PathStep] = []
    for n in range(1000):
        known = np.array([flat[i] for i in search.token_ids.tolist()], np.float32)
        search.push(known, OTHER, flat[OTHER])
        steps += search.take()
        assert n + 1 - len(steps) < 100 + 25  # traced every 25
    assert len(steps) >= 900
    at_end = search.end()
    steps += search.take()
    assert len(steps) == 1000
    assert units_in(steps, at_end) == list(range(len(units)))


def test_a_paragraph_that_was_not_said_is_left_out() -> None:
    units = [TextUnit(str(i), " ", ((100 + i,),), True) for i in range(60)]
    ids = [PAD]
    said = [*range(20), *range(40, 60)]
    for i in said:
        ids += [WORD, 100 + i, PAD, PAD]
    vocabulary = [PAD, WORD, *range(100, 160)]
    logprobs = [{i: -0.01 if i == one else -12.0 for i in vocabulary} for one in ids]
    steps, at_end = searched(units, logprobs)
    written = [step.unit for step in steps if step.is_first]
    assert written == said
    assert units_in(steps, at_end) == list(range(60))
