"""python -m benchmarks.search_gain: what the search gains on matrices of true widths.

Squared error against `mx.quantize`, per bits and width of the full-size model, of
random weights: Gaussian, and Student-t with 4 degrees of freedom for heavy tails. Rows
are rounded one by one, so some of them say what all would. Then the time per weight of
a larger matrix, on all cores.
"""

import os
import time
from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from benchmarks.provenance import closing_line
from convert.affine import Floats, packed
from convert.search import search
from voxmlx.cli.arguments import CommandParser, whole_number
from voxmlx.layouts.configs import Precision

__all__ = ["error_share", "main"]

BITS = (2, 3, 4, 5, 6, 8)
WIDTHS = (1280, 2048, 3072, 4096, 5120, 9216)
TIMED = 2048, 3072
N_WEIGHTS = 4.42e9  # of the full-size model's matrices


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, then one line of JSON."""
    parser = CommandParser("python -m benchmarks.search_gain", description=__doc__)
    parser.add_argument("--rows", type=whole_number(1, 1_000_000), default=32)
    parser.add_argument("--group-size", type=int, default=64, choices=(32, 64, 128))
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    shares: dict[str, dict[str, float]] = {}
    print(f"| weights | width | {' | '.join(f'{b} bits' for b in BITS)} |")
    print(f"|---|---|{'---|' * len(BITS)}")
    for kind in ("Gaussian", "Student-t"):
        for width in WIDTHS:
            shape = options.rows, width
            drawn = (
                rng.standard_normal(shape)
                if kind == "Gaussian"
                else rng.standard_t(4, shape)
            )
            rows = _bfloat16((0.02 * drawn).astype(np.float32))
            row = {
                str(bits): error_share(rows, Precision(bits, options.group_size))
                for bits in BITS
            }
            shares[f"{kind} {width}"] = row
            cells = " | ".join(f"{share:.3f}" for share in row.values())
            print(f"| {kind} | {width} | {cells} |", flush=True)
    rows = _bfloat16((0.02 * rng.standard_normal(TIMED)).astype(np.float32))
    per_weight = {
        str(bits): _ns_per_weight(rows, Precision(bits, options.group_size))
        for bits in BITS
    }
    print(f"\n| bits | ns per weight, {os.cpu_count()} cores | minutes, full model |")
    print("|---|---|---|")
    for bits, ns in per_weight.items():
        print(f"| {bits} | {ns:.0f} | {ns * N_WEIGHTS / 60e9:.0f} |")
    print(closing_line("search_gain", shares=shares, ns_per_weight=per_weight))


def _ns_per_weight(rows: Floats, precision: Precision) -> float:
    started = time.perf_counter()
    search(rows, precision, "bfloat16")
    return 1e9 * (time.perf_counter() - started) / rows.size


def error_share(rows: Floats, precision: Precision) -> float:
    """Return the search's squared error over that of `mx.quantize`, stored bfloat16."""
    ours = packed(search(rows, precision, "bfloat16"), precision.bits, "bfloat16")
    assert ours.biases is not None
    theirs = mx.quantize(
        mx.array(rows).astype(mx.bfloat16),
        group_size=precision.group_size,
        bits=precision.bits,
    )
    errors: list[float] = []
    for codes, scales, biases in ((ours.weight, ours.scales, ours.biases), theirs):
        back = mx.dequantize(
            codes,
            scales.astype(mx.float32),
            biases.astype(mx.float32),
            group_size=precision.group_size,
            bits=precision.bits,
        )
        errors.append(float(((np.array(back, np.float64) - rows) ** 2).sum()))
    return errors[0] / errors[1]


def _bfloat16(rows: Floats) -> Floats:
    return np.array(mx.array(rows).astype(mx.bfloat16).astype(mx.float32))


if __name__ == "__main__":
    main()
