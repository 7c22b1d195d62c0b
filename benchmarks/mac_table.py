"""python -m benchmarks.mac_table: predicted milliseconds of a step, per Mac.

Nothing is measured: the table follows from each chip's published figures and from the
assumptions that are printed below it. `docs/macs.md` has the same table. Ends in one
JSON line.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict

from benchmarks.provenance import closing_line
from voxmlx.config import AUDIO_TOKEN_MS
from voxmlx.doctor.chips import ASSUMPTIONS, CHIPS, Chip
from voxmlx.doctor.estimate import (
    default_model,
    speed_of,
    step_estimate,
)
from voxmlx.layouts.recipes import RECIPES, Recipe

__all__ = ["COLUMNS", "main", "predicted_ms", "table"]

# Title, recipe, bits of the rings, how far windows are filled.
COLUMNS: tuple[tuple[str, Recipe, int, float], ...] = (
    ("default, start", default_model(), 16, 0.0),
    ("default, full", default_model(), 16, 1.0),
    ("default `--kv-bits 8`, full", default_model(), 8, 1.0),
    ("`q4`, start", RECIPES["q4"], 16, 0.0),
    ("`q4`, full", RECIPES["q4"], 16, 1.0),
    ("`q4 --kv-bits 8`, full", RECIPES["q4"], 8, 1.0),
)


def predicted_ms(chip: Chip) -> list[float]:
    """Return the milliseconds of a step in each of COLUMNS."""
    speed = speed_of(chip)
    return [
        step_estimate(speed, recipe, kv_bits, filled, chip).total_ms
        for _, recipe, kv_bits, filled in COLUMNS
    ]


def table() -> Iterator[str]:
    """Yield the lines of the table in Markdown."""
    yield f"| Mac | GB/s | {' | '.join(title for title, *_ in COLUMNS)} |"
    yield "|" + "---|" * (len(COLUMNS) + 2)
    for chip in CHIPS:
        cells = " | ".join(f"{ms:.0f} ms" for ms in predicted_ms(chip))
        name = f"{chip.name}, {chip.n_cores} GPU cores"
        yield f"| {name} | {chip.gb_per_s:.0f} | {cells} |"


def main() -> None:
    """Print the table, what it assumes, and the parts of two steps of an M1."""
    argparse.ArgumentParser(description=__doc__, allow_abbrev=False).parse_args()
    print(f"predicted ms of a step, of {AUDIO_TOKEN_MS}\n")
    print("\n".join(table()))
    print("\nassumptions")
    for assumption in ASSUMPTIONS:
        print(f"- {assumption}")
    m1 = CHIPS[0]
    parts = {
        title: step_estimate(speed_of(m1), recipe, kv_bits, filled, m1)
        for title, recipe, kv_bits, filled in COLUMNS[1:3]
    }
    print(f"\nparts of a step, {m1.name}")
    for title, step in parts.items():
        found = ", ".join(
            f"{name.removesuffix('_ms')} {ms:.1f}" for name, ms in asdict(step).items()
        )
        print(f"- {title}: {found}; in all {step.total_ms:.1f}")
    print(
        closing_line(
            "mac_table",
            predicted_ms={f"{c.name} {c.n_cores}": predicted_ms(c) for c in CHIPS},
            assumptions=ASSUMPTIONS,
        )
    )


if __name__ == "__main__":
    main()
