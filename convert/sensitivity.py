"""python -m convert.sensitivity: how many bits each group of weights wants.

Each group alone is rounded as `--rounding search` does it. KL to the unchanged model says
how much that matters. KL is quadratic in small errors, and a bit more halves the error of
every weight. So at a given size KL is least where a group has half a bit more for each
doubling of its KL per weight (reverse water-filling; Cover and Thomas, Elements of
Information Theory, section 10.3.3).
"""

import sys

if __name__ == "__main__":
    # Before all else is imported: Ctrl-C meanwhile should show no traceback.
    from voxmlx.cli.start import start

    sys.exit(start(f"{__package__}.sensitivity"))


import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import log2, prod
from pathlib import Path

from voxmlx import Checkpoint, load
from voxmlx.cli.arguments import CommandParser, run_command
from voxmlx.errors import CheckpointError
from voxmlx.layouts.configs import Precision

from .budget import Unit, costs_of
from .products import modules_of, shapes_of
from .quality import Sound, read_sounds

__all__ = ["GROUPS", "SensitivityRow", "main", "sensitivities", "wanted_bits"]

# Globs over the network's paths, as a recipe's rules have them.
GROUPS = (
    "encoder.layers.*.attention.qkv_proj",
    "encoder.layers.*.attention.o_proj",
    "encoder.layers.*.mlp.gate_up_proj",
    "encoder.layers.*.mlp.down_proj",
    "adapter.*",
    "decoder.layers.*.attention.qkv_proj",
    "decoder.layers.*.attention.o_proj",
    "decoder.layers.*.mlp.gate_up_proj",
    "decoder.layers.*.mlp.down_proj",
    "decoder.embedding",
)
_GROUP_SIZE = 64


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """KL in nats, mean of all tokens, where one group alone is rounded."""

    group: str
    n_weights: int
    kl: float


def sensitivities(
    checkpoint: Checkpoint, sounds: Sequence[Sound], bits: int = 4
) -> list[SensitivityRow]:
    """Return a row for each of GROUPS, in their order. The model stays as it was.

    Raises CheckpointError where the model is quantized already, or cannot be.
    """
    if any("scales" in module for module in modules_of(checkpoint.model).values()):
        raise CheckpointError(
            "the model is quantized already; give the one in 16 bits to measure what "
            "bits cost"
        )
    found: dict[str, list[Unit]] = {group: [] for group in GROUPS}
    for path, shape in shapes_of(checkpoint.model).items():
        for group in GROUPS:
            if fnmatchcase(path, group) and shape[-1] % _GROUP_SIZE == 0:
                found[group].append(Unit(path, prod(shape)))
    found = {group: units for group, units in found.items() if units}
    if not found:
        raise CheckpointError(
            f"no matrix has rows of whole groups of {_GROUP_SIZE} weights, so none can "
            "be rounded; give a model that has"
        )
    costs = costs_of(checkpoint, found, sounds, Precision(bits, _GROUP_SIZE))
    return [
        SensitivityRow(group, sum(unit.n_weights for unit in units), costs[group])
        for group, units in found.items()
    ]


def wanted_bits(rows: Sequence[SensitivityRow], fewest: float = 4) -> dict[str, float]:
    """Return the bits of each group where the least sensitive one has `fewest`.

    A group that costs nothing has as many as that one.
    """
    per_weight = {row.group: row.kl / row.n_weights for row in rows}
    least = min((kl for kl in per_weight.values() if kl > 0), default=1)
    return {
        group: fewest + log2(max(kl, least) / least) / 2
        for group, kl in per_weight.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = CommandParser(
        "python -m convert.sensitivity",
        description="Say how much KL to the unchanged model each group of weights "
        "causes when it alone has few bits, and how many bits it wants where the least "
        "sensitive group has that many.",
    )
    parser.add_argument("model", metavar="MODEL", help="directory or Hub id")
    parser.add_argument("--audio", nargs="+", type=Path, required=True)
    parser.add_argument("--bits", type=int, default=4, choices=(2, 3, 4, 5, 6, 8))
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    sounds = read_sounds(options.audio, with_transcripts=False)
    checkpoint = load(options.model, "float32", embedding_bits=16)
    rows = sensitivities(checkpoint, sounds, options.bits)
    wanted = wanted_bits(rows, options.bits)
    print(f"{'group':38} {'weights':>13} {'KL (nats)':>10} {'bits wanted':>11}")
    for row in sorted(rows, key=lambda row: -wanted[row.group]):
        print(
            f"{row.group:38} {row.n_weights:13,} {row.kl:10.2e} "
            f"{wanted[row.group]:11.1f}"
        )
    return 0
