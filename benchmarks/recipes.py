"""python -m benchmarks.recipes: every recipe of convert beside the others, in quality.

Each is converted to and verified as `python -m convert --verify` does it.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.held_out import write_held_out
from benchmarks.provenance import closing_line
from convert.__main__ import convert
from convert.disk import amount
from convert.quality import Sound, read_sounds
from convert.recipes import RECIPES
from voxmlx import demo

_COLUMNS = (
    "recipe",
    "bits per weight",
    "size",
    "tokens agree, same history",
    "own history",
    "logit error, mean",
    "max",
    "KL, mean (nats)",
    "max",
    "PAD margin",
    "WER",
)


def main() -> None:
    """Print a Markdown table, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", default=demo.NAME)
    parser.add_argument(
        "--audio",
        nargs="+",
        type=Path,
        help="sounds, with a .txt beside those whose words are known (default: the "
        "demo model's 120 test sentences)",
    )
    parser.add_argument(
        "--recipe",
        nargs="+",
        choices=RECIPES,
        default=[r.name for r in RECIPES.values() if not r.is_source_kept],
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = options.audio or write_held_out(directory / "sounds")
        sounds = read_sounds(paths)
        certificates = [
            _certificate(options.model, directory / recipe, recipe, sounds)
            for recipe in options.recipe
        ]
    first = certificates[0]
    normaliser = first["normaliser"]
    print(
        f"\n{len(sounds)} sounds, {first['total']['n_tokens']} tokens, delay "
        f"{first['delay_ms']} ms; source in {first['reference_dtype']}, results "
        f"computed in {first['dtype']}"
        + (f"; WER after {normaliser}\n" if normaliser else "\n")
    )
    print(_line(_COLUMNS))
    print(_line(["---"] * len(_COLUMNS)))
    wer = _percent(first["total"]["reference_wer"])
    margin = first["total"]["reference_pad_margin"]
    print(_line(["(source)", *[""] * 8, f"{margin:.2f}", wer]))
    for certificate in certificates:
        print(_line(_row(certificate)))
    figures = {
        c["recipe"]: {"bits_per_weight": c["bits_per_weight"], **c["total"]}
        for c in certificates
    }
    print("\n" + closing_line("recipes", model=options.model, recipes=figures))


def _certificate(
    model: str, destination: Path, recipe: str, sounds: Sequence[Sound]
) -> dict[str, Any]:
    convert(model, destination, recipe=recipe, sounds=sounds)
    return json.loads((destination / "quality.json").read_text(encoding="utf-8"))


def _row(certificate: dict[str, Any]) -> list[str]:
    total = certificate["total"]
    return [
        f"`{certificate['recipe']}`",
        f"{certificate['bits_per_weight']:.2f}",
        amount(certificate["n_bytes"]),
        f"{total['token_agreement']:.2%}",
        f"{total['free_token_agreement']:.2%}",
        f"{total['mean_logit_error']:.4f}",
        f"{total['max_logit_error']:.2f}",
        f"{total['mean_kl']:.2e}",
        f"{total['max_kl']:.2e}",
        f"{total['pad_margin']:.2f}",
        _percent(total["wer"]),
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
