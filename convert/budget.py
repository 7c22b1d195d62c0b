"""Bits of each matrix under a number of bytes, by what the matrix does to the ids.

Each matrix alone is rounded to a few bits, and the model hears some sound: KL to the
unchanged model says how much that matrix matters. The squared error of other bits follows
from the width of their steps, and so does KL, which is quadratic in small errors. From the
fewest bits on, the step that saves most KL for its bytes is taken next.

Example: at 4 bits the embedding of the demo model costs 2e-3 nats and a bit more takes
41 kB; gate and up of its encoder cost 3e-4 and take 138 kB. So the embedding gets 6 bits
before gate and up get 5.

`mlx_lm.quant.dynamic_quant` asks gradients instead, and keeps a second model and them in
memory. Here no gradient is needed, and no second model.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx import Checkpoint
from voxmlx.config import SAMPLE_RATE
from voxmlx.errors import OutputError
from voxmlx.kernels.evaluation import as_numpy
from voxmlx.layouts import Module, packed_path
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.recipes import ADA_RULE, Recipe, Rule

from .affine import Floats, dequantized
from .disk import amount
from .gptq import Inputs, gptq
from .model_reading import forced_together, free_ids, heard
from .products import modules_of, replaced_weight
from .quality import Sound
from .search import search

__all__ = [
    "BUDGET_BITS",
    "LEAST",
    "OnMeasured",
    "Unit",
    "allocated",
    "budget_recipe",
    "costs_of",
    "measured",
    "n_bytes_of",
    "units",
]

BUDGET_BITS = (3, 4, 5, 6, 8)
_GROUP_SIZE = 64
_PROBE_BITS = 4
_PROBE = Precision(_PROBE_BITS, _GROUP_SIZE)
# Sounds that are heard side by side.
_ROWS = 16
# Headers of files grow with the numbers in them.
_SLACK_BYTES = 16_000
# More sound says little more of which matrix matters, and each matrix hears it.
_SECONDS = 30

# The fewest bits everywhere: no budget can be smaller.
LEAST = Recipe(
    "least",
    "",
    (ADA_RULE, Rule("*", Precision(BUDGET_BITS[0], _GROUP_SIZE))),
)

# Hears how many matrices are measured, and of how many.
OnMeasured = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Unit:
    """One product of the network, or its embedding: it gets bits by itself."""

    path: str
    n_weights: int


def units(modules: Iterable[Module]) -> list[Unit]:
    """Return all matrices that can be rounded, parts of one product together."""
    sizes: dict[str, int] = {}
    for module in modules:
        is_whole = module.can_be_quantized and module.shape[1] % _GROUP_SIZE == 0
        if is_whole and ".ada." not in module.path:
            path = packed_path(module.path)
            n = module.shape[0] * module.shape[1]
            sizes[path] = sizes.get(path, 0) + n
    return [Unit(path, n) for path, n in sizes.items()]


def measured(
    checkpoint: Checkpoint,
    wanted: Sequence[Unit],
    sounds: Sequence[Sound],
    on_measured: OnMeasured | None = None,
) -> dict[str, float]:
    """Return KL to the unchanged model, in nats, when each unit alone has 4 bits."""
    groups = {unit.path: [unit] for unit in wanted}
    return costs_of(checkpoint, groups, _first(sounds), on_measured=on_measured)


def costs_of(
    checkpoint: Checkpoint,
    groups: Mapping[str, Sequence[Unit]],
    sounds: Sequence[Sound],
    precision: Precision = _PROBE,
    on_measured: OnMeasured | None = None,
) -> dict[str, float]:
    """Return KL to the unchanged model, in nats, when each group alone is rounded.

    It is the mean of all tokens of `sounds`, each after the unchanged model's tokens.
    The model stays as it was.
    """
    parts = [sounds[i : i + _ROWS] for i in range(0, len(sounds), _ROWS)]
    audio = [heard(checkpoint, part) for part in parts]
    ids = [free_ids(checkpoint, x) for x in audio]
    before = _log_probabilities(checkpoint, audio, ids)
    modules = modules_of(checkpoint.model)
    weights: mx.array = checkpoint.model.decoder.norm.weight
    norm = np.asarray(as_numpy(weights.astype(mx.float32)))
    found: dict[str, float] = {}
    for i, (name, units) in enumerate(groups.items()):
        with ExitStack() as changed:
            for unit in units:
                change = _rounded(unit, precision, norm)
                changed.enter_context(replaced_weight(modules[unit.path], change))
            is_late = all(unit.path.startswith("decoder.") for unit in units)
            inputs = audio if is_late else [heard(checkpoint, part) for part in parts]
            after = _log_probabilities(checkpoint, inputs, ids)
        each = [_divergence(p, q) for p, q in zip(before, after, strict=True)]
        found[name] = float(np.mean(np.concatenate(each), dtype=np.float64))
        if on_measured is not None:
            on_measured(i + 1, len(groups))
    return found


def _first(sounds: Sequence[Sound]) -> list[Sound]:
    """Sounds from all over the list, of some 30 s together."""
    most = _SECONDS * SAMPLE_RATE
    total = sum(len(sound.samples) for sound in sounds)
    n = max(1, min(len(sounds), most * len(sounds) // total))
    some = [sounds[i * len(sounds) // n] for i in range(n)]
    return [Sound(sound.name, sound.samples[: most // n], None) for sound in some]


def _rounded(
    unit: Unit, precision: Precision, norm: Floats
) -> Callable[[Floats], Floats]:
    def rounded(rows: Floats) -> Floats:
        if unit.path.endswith("embedding"):
            # As the search rounds it: plain least squares would make it look worse.
            inputs = Inputs.guessed([mx.array(rows)], norm)
            return dequantized(gptq(rows, inputs, precision, "bfloat16"))
        return dequantized(search(rows, precision, "bfloat16"))

    return rounded


def _log_probabilities(
    checkpoint: Checkpoint,
    audio: Sequence[Sequence[mx.array]],
    ids: Sequence[Sequence[NDArray[np.int32]]],
) -> list[Floats]:
    """Return those of each sound [n, vocab], some sounds side by side."""
    found: list[Floats] = []
    for inputs, histories in zip(audio, ids, strict=True):
        rows: list[list[Floats]] = [[] for _ in histories]
        for i, block in forced_together(checkpoint, inputs, histories):
            shifted = block - block.max(axis=1, keepdims=True)
            rows[i].append(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
        found += [np.concatenate(parts) for parts in rows]
    return found


def _divergence(p: Floats, q: Floats) -> Floats:
    """KL [n] of log-probabilities [n, vocab], never less than 0.

    Both sum to 1, so p (log p - log q) may have q - p added. Then no term is negative,
    and rounding cannot make the sum so.
    """
    lead = p - q
    # Far from 0 nothing cancels, and expm1 would be infinite.
    is_near = np.abs(lead) < 1
    near = np.exp(p) * (lead + np.expm1(np.where(is_near, -lead, 0)))
    return np.where(is_near, near, np.exp(p) * (lead - 1) + np.exp(q)).sum(axis=1)


def allocated(
    wanted: Sequence[Unit], costs: Mapping[str, float], n_spare_bytes: int
) -> dict[str, int]:
    """Return each unit's bits: the fewest, and more where `n_spare_bytes` do most.

    `costs` are KL at 4 bits.
    """
    bits = {unit.path: BUDGET_BITS[0] for unit in wanted}
    steps = [
        (_saving(costs[unit.path], few, many) / n, unit.path, few, many, n)
        for unit in wanted
        for few, many in pairwise(BUDGET_BITS)
        for n in [unit.n_weights * (many - few) / 8]
    ]
    left = float(n_spare_bytes)
    # A unit's steps save less and less, so they come in order.
    for _, path, few, many, n in sorted(steps, key=lambda step: (-step[0], step[1:])):
        if bits[path] == few and n <= left:
            bits[path] = many
            left -= n
    return bits


def _saving(cost: float, few: int, many: int) -> float:
    return cost * (_squared_step(few) - _squared_step(many))


def _squared_step(bits: int) -> float:
    """The squared error of `bits` over that of the probe."""
    return ((2**_PROBE_BITS - 1) / (2**bits - 1)) ** 2


def budget_recipe(
    wanted: Sequence[Unit], costs: Mapping[str, float], n_bytes: int, n_least: int
) -> Recipe:
    """Return the recipe for at most `n_bytes`, where the fewest bits take `n_least`.

    Raises OutputError where not even those fit.
    """
    n_least += _SLACK_BYTES
    if n_bytes < n_least:
        raise OutputError(
            f"a budget of {amount(n_bytes)} is too small: {BUDGET_BITS[0]} bits "
            f"everywhere take {amount(n_least)}; give that or more"
        )
    bits = allocated(wanted, costs, n_bytes - n_least)
    rules = [Rule(path, Precision(n, _GROUP_SIZE)) for path, n in bits.items()]
    # A matrix that is no unit stays as it is.
    return Recipe(
        "budget",
        f"bits by measurement, at most {amount(n_bytes)}",
        (ADA_RULE, *rules, Rule("*", None)),
    )


def n_bytes_of(text: str) -> int:
    """Return the bytes that "2.2GB" or "900 MB" names. Raises ValueError."""
    match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d+)?)\s*([KMG]B)\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is no size; write it like 2.2GB or 900MB")
    powers = {"KB": 3, "MB": 6, "GB": 9}
    return int(float(match[1]) * 10 ** powers[match[2].upper()])
