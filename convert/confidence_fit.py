"""Words that were recognized, right or wrong -> a map of confidence, and its error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from voxmlx import Checkpoint, Session, WordFinal
from voxmlx.text.confidence_map import IDENTITY, ConfidenceMap

from .word_errors import check_installed

__all__ = [
    "MIN_WORDS",
    "WordOutcome",
    "calibration_error",
    "fit_confidence_map",
    "word_outcomes",
]

MIN_WORDS = 200
"""Fewer words tell too little of how often one is right."""

# A point of the map stands for at least so many words.
_WORDS_PER_POINT = 40
_MAX_POINTS = 20


@dataclass(frozen=True, slots=True)
class WordOutcome:
    """A recognized word: its raw confidence, and whether it was said."""

    raw: float
    is_right: bool


def word_outcomes(
    checkpoint: Checkpoint,
    samples: NDArray[np.float32],
    transcript: str,
    delay_ms: int,
) -> list[WordOutcome]:
    """Transcribe samples [n] and compare each word with what was said.

    Words without a letter or a digit are left out. Raises OutputError where jiwer is
    missing.
    """
    jiwer, normalize = check_installed()
    uncalibrated = replace(checkpoint, confidence_map=IDENTITY)
    session = Session(uncalibrated, delay_ms=delay_ms, confidence=True)
    events = session.push(samples) + session.finish()
    words = [event.word for event in events if isinstance(event, WordFinal)]
    owners: list[int] = []
    heard: list[str] = []
    for i, word in enumerate(words):
        tokens = normalize(word.text).split()
        heard += tokens
        owners += [i] * len(tokens)
    said = normalize(transcript).split()
    is_right = [False] * len(heard)
    if heard and said:
        result = jiwer.process_words(" ".join(said), " ".join(heard))
        for chunk in result.alignments[0]:
            if chunk.type == "equal":
                n = chunk.hyp_end_idx - chunk.hyp_start_idx
                is_right[chunk.hyp_start_idx : chunk.hyp_end_idx] = [True] * n
    wrong = {owner for owner, right in zip(owners, is_right, strict=True) if not right}
    written = set(owners)
    return [
        WordOutcome(word.confidence, i not in wrong)
        for i, word in enumerate(words)
        if i in written and word.confidence is not None
    ]


def fit_confidence_map(outcomes: Sequence[WordOutcome]) -> ConfidenceMap:
    """Fit the map that never falls and has the least square error.

    Pools adjacent groups of words that violate the order. Returns the identity for
    fewer words than MIN_WORDS.
    """
    if len(outcomes) < MIN_WORDS:
        return IDENTITY
    order = sorted(outcomes, key=lambda one: one.raw)
    n_groups = min(_MAX_POINTS, len(order) // _WORDS_PER_POINT)
    # Sums of raw, of right words, and the number of words: one more of each outcome in
    # all, so that nothing is certain.
    mean = sum(one.is_right for one in order) / len(order)
    pools: list[tuple[float, float, float]] = []
    for part in np.array_split(np.arange(len(order)), n_groups):
        places: list[int] = part.tolist()
        group = [order[i] for i in places]
        raw = sum(one.raw for one in group)
        pool = raw, mean + sum(one.is_right for one in group), len(group) + 1.0
        pools.append((raw * pool[2] / len(group), pool[1], pool[2]))
        while len(pools) > 1 and _rate(pools[-2]) >= _rate(pools[-1]):
            last = pools.pop()
            before = pools.pop()
            pools.append(
                (before[0] + last[0], before[1] + last[1], before[2] + last[2])
            )
    points = [(0.0, round(_rate(pools[0]), 5))]
    for pool in pools:
        raw, rate = round(pool[0] / pool[2], 5), round(_rate(pool), 5)
        if points[-1][0] < raw < 1:
            points.append((raw, rate))
    points.append((1.0, round(_rate(pools[-1]), 5)))
    raws, rates = zip(*points, strict=True)
    return ConfidenceMap(raws, rates, len(order))


def calibration_error(
    outcomes: Sequence[WordOutcome],
    mapped: Callable[[float], float] = IDENTITY,
    n_bins: int = 10,
) -> float:
    """Return the expected calibration error over bins of equal width.

    The mean distance of a bin's mean confidence from its share of right words, weighted
    by its words. 0 is the best.
    """
    confidence = np.array([mapped(one.raw) for one in outcomes])
    is_right = np.array([one.is_right for one in outcomes], float)
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    total = 0.0
    for i in np.unique(bins):
        inside = bins == i
        distance = abs(confidence[inside].mean() - is_right[inside].mean())
        total += float(distance) * int(inside.sum())
    return total / len(outcomes)


def _rate(pool: tuple[float, float, float]) -> float:
    return pool[1] / pool[2]
