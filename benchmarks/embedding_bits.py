"""python -m benchmarks.embedding_bits: the cost of quantizing the embedding at load.

The demo model is converted to 4 bits with its embedding left in 16, as the default model
has it. It is then loaded with every `embedding_bits`, and its logits are compared with
those of the embedding in 16 bits. Bytes are those of the full model's embedding. Ends in
one JSON line.
"""

import argparse
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.held_out import write_held_out
from benchmarks.provenance import closing_line
from convert import quality
from convert.__main__ import convert
from convert.model_reading import read
from convert.products import dequantize
from voxmlx import demo, load
from voxmlx.doctor.estimate import FULL_SIZE
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.embedding import EMBEDDING, EMBEDDING_BITS
from voxmlx.layouts.recipes import RECIPES, Recipe, Rule

__all__ = ["embedding_bytes", "main", "measured", "write_default_like"]

_NAME = "q4-embedding-16"


def embedding_bytes(bits: int) -> int:
    """Return the bytes of the full model's embedding, which every step reads."""
    of_weight = 16 if bits == 16 else Precision(bits, 64).stored_bits
    return int(FULL_SIZE.decoder.vocab_size * FULL_SIZE.decoder.dim * of_weight / 8)


def write_default_like(source: str, destination: Path) -> Path:
    """Convert `source` to 4 bits but for its embedding, like the default model."""
    rules = (Rule(EMBEDDING, None), *RECIPES["q4"].rules)
    recipe = Recipe(_NAME, "4 bits, embedding in 16", rules)
    with patch.dict(RECIPES, {_NAME: recipe}), redirect_stdout(StringIO()):
        convert(source, destination, recipe=_NAME, rounding="nearest")
    return destination


def measured(directory: Path, sounds: list[quality.Sound]) -> list[dict[str, Any]]:
    """Return for each of EMBEDDING_BITS what it costs against 16 bits."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        references: list[quality.ModelReading] = []
        for bits in EMBEDDING_BITS:
            model = load(directory, "float32", embedding_bits=bits)
            # The weights are those that are stored; see benchmarks/results/recipes.md.
            dequantize(model.model)
            histories = [one.ids for one in references] or None
            readings = list(read(model, sounds, Path(scratch), histories))
            references = references or readings
            total = quality.certificate(
                sounds, references, readings, "float32", "float32"
            )["total"]
            rows.append({"bits": bits, "n_bytes": embedding_bytes(bits), **total})
    return rows


def main() -> None:
    """Print a row for each number of bits, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", default=demo.NAME, help="in 16 bits")
    parser.add_argument("--every", type=int, default=1, help="of 120 sounds, each n-th")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        paths = write_held_out(Path(name, "sounds"))
        sounds = quality.read_sounds(paths)[:: options.every]
        directory = write_default_like(options.model, Path(name, "model"))
        rows = measured(directory, sounds)
    print(
        f"{len(sounds)} sounds, {rows[0]['n_tokens']} tokens; embedding against 16 bits"
    )
    print(
        f"{'bits':>4} {'MB a step':>9} {'KL':>9} {'p99':>9} {'same ids':>9} "
        f"{'own ids':>8} {'WER':>7}"
    )
    for row in rows:
        print(
            f"{row['bits']:4} {row['n_bytes'] / 1e6:9.0f} {row['mean_kl']:9.2e} "
            f"{row['p99_kl']:9.2e} {row['token_agreement']:9.2%} "
            f"{row['free_token_agreement']:8.2%} {row['wer']:7.2%}"
        )
    print(closing_line("embedding_bits", rows=rows))


if __name__ == "__main__":
    main()
