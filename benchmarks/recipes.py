"""python -m benchmarks.recipes: every recipe and rounding of convert, in quality.

Each is converted to and measured as `voxmlx-convert --verify` does it. The table and a
plot of bits against KL go to benchmarks/results/recipes.md and recipes.png with
--write. A control row has the scales and biases of `mx.quantize`, rounded to the stored
type before the codes are chosen: what the order of rounding alone gains.

With --keep FOLDER each row is kept there once it is measured, and the same command goes
on after an interruption. Rows of another model or of other sounds are refused.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np

from benchmarks.held_out import write_held_out
from benchmarks.provenance import closing_line
from convert import search
from convert.__main__ import convert
from convert.affine import Floats, Rounded, stored
from convert.calibration import Calibration, calibration_path, read_calibration
from convert.disk import amount, disk_errors, write_whole
from convert.plan import Plan
from convert.quality import Sound, read_sounds
from convert.rounding import CALIBRATED
from convert.verify import References, read_references, verify_against
from voxmlx import demo
from voxmlx.cli.arguments import CommandParser, run_command, whole_number
from voxmlx.errors import OutputError
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.recipes import RECIPES, DtypeName

__all__ = ["COLUMNS", "main"]

COLUMNS = (
    "recipe",
    "rounding",
    "bits per weight",
    "size",
    "read per step",
    "tokens agree, same history",
    "own history",
    "KL, mean (nats)",
    "p99",
    "PAD margin",
    "WER",
    "95 % interval",
)
_RESULTS = Path(__file__).parent / "results"
_PREFACE = """# What the bits of each recipe cost

The demo model, converted to each recipe and measured as `voxmlx-convert --verify` does
it. The weights are those that are stored, the activations float32: MLX's quantized
products on a CPU are inaccurate in half precision. The products are NumPy's there. The
delay is 480 ms.

"Same history": each token is chosen after the source's own tokens. "Own history": each
model transcribes alone, so one other choice may shift all that follow. PAD margin: its
lead in logits over the best other token, where the source chooses it. The interval of the
WER is a bootstrap over the sounds. "control" has the scales of `mx.quantize`, rounded to
the stored type before the codes are chosen.

The calibration sound of `gptq` and `dwq` has no voice and no two words in a row in common with the
test sentences (`training/calibration.py`).

```sh
python -m benchmarks.recipes --rounding nearest control search gptq --write
```

![bits against KL](recipes.png)

"""
CONTROL = "control"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a Markdown table as it is measured, then one line of JSON.

    Returns the exit status.
    """
    parser = CommandParser("python -m benchmarks.recipes", description=__doc__)
    parser.add_argument("--model", default=demo.NAME)
    parser.add_argument(
        "--audio",
        nargs="+",
        type=Path,
        help="sounds, with a .txt beside those whose words are known (default: the "
        "demo model's 120 test sentences)",
    )
    parser.add_argument(
        "--calibrate", nargs="+", type=calibration_path, default=[Path(demo.NAME)]
    )
    parser.add_argument(
        "--every",
        type=whole_number(1, 1000),
        default=1,
        help="of the sounds, each n-th",
    )
    parser.add_argument(
        "--recipe",
        nargs="+",
        choices=RECIPES,
        default=[r.name for r in RECIPES.values() if not r.is_source_kept],
    )
    parser.add_argument(
        "--rounding",
        nargs="+",
        choices=["nearest", CONTROL, "search", "gptq", "dwq"],
        default=["nearest", "search", "gptq"],
    )
    parser.add_argument("--keep", type=Path, help="a folder for rows already measured")
    parser.add_argument("--write", action="store_true", help="write the results")
    options = parser.parse_args(arguments)
    return run_command(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = options.audio or write_held_out(directory / "sounds")
        sounds = read_sounds(paths)[:: options.every]
        certificates = list(_measured(options, directory, sounds))
    table = "\n".join([*_table(certificates), ""])
    closing = closing_line(
        "recipes",
        model=options.model,
        n_sounds=len(sounds),
        recipes=[_figures(certificate) for certificate in certificates],
    )
    print("\n" + closing)
    if options.write:
        (_RESULTS / "recipes.md").write_text(_PREFACE + table, encoding="utf-8")
        _plot(certificates, _RESULTS / "recipes.png")
    return 0


def _measured(
    options: argparse.Namespace, directory: Path, sounds: Sequence[Sound]
) -> Iterator[dict[str, Any]]:
    references: References | None = None
    for line in (_line(COLUMNS), _line(["---"] * len(COLUMNS))):
        print(line, flush=True)
    if options.keep is not None:
        with disk_errors(options.keep, is_begun=False):
            options.keep.mkdir(parents=True, exist_ok=True)
    calibration: Sequence[Sound] = []
    if not CALIBRATED.isdisjoint(options.rounding):
        calibration = read_calibration(options.calibrate)
    with _calibrated_once():
        for recipe, rounding in _pairs(options.recipe, options.rounding):
            heard = calibration if rounding in CALIBRATED else []
            inputs = {
                "model": options.model,
                "sounds": [[sound.digest, sound.transcript] for sound in sounds],
                "calibration": [sound.digest for sound in heard],
            }
            kept = options.keep and options.keep / f"{recipe}-{rounding}.json"
            if kept is not None and kept.is_file():
                certificate = _kept_row(kept, inputs)
            else:
                plan = _converted(options.model, directory, recipe, rounding, heard)
                with redirect_stdout(StringIO()):
                    if references is None:
                        references = read_references(plan, sounds, directory)
                    certificate = verify_against(
                        references, plan, _place(directory, recipe, rounding), directory
                    )
                certificate["rounding"] = rounding
                certificate["inputs"] = inputs
            if kept is not None:
                write_whole(kept, json.dumps(certificate).encode())
            print(_line(_row(certificate)), flush=True)
            yield certificate


def _kept_row(path: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return a row measured before. Raises OutputError where it had other inputs."""
    certificate: dict[str, Any] = {}
    try:
        certificate = json.loads(path.read_text("utf-8"))
        found = dict(certificate["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        found = dict.fromkeys(inputs)
    others = [name for name in inputs if found.get(name) != inputs[name]]
    if others:
        raise OutputError(
            f"{path} is of other inputs ({', '.join(others)}); remove it, or name "
            "another folder for --keep"
        )
    return certificate


def _converted(
    model: str,
    directory: Path,
    recipe: str,
    rounding: str | None,
    calibration: Sequence[Sound],
) -> Plan:
    # pyright cannot narrow a name that is none of ours.
    ours: Any = "search" if rounding in (CONTROL, None) else rounding
    with redirect_stdout(StringIO()), _controlled(rounding == CONTROL):
        return convert(
            model,
            _place(directory, recipe, rounding),
            recipe=recipe,
            rounding=ours,
            calibration=calibration,
        )


def _place(directory: Path, recipe: str, rounding: str | None) -> Path:
    return directory / f"{recipe}-{rounding}"


@contextmanager
def _calibrated_once() -> Iterator[None]:
    """Have all recipes share what the products have seen: it is the same for all."""
    seen: dict[str, mx.array] = {}

    class Remembering(Calibration):
        def hessian(self, path: str) -> mx.array:
            if path not in seen:
                seen[path] = super().hessian(path)
            return seen[path]

    with patch("convert.__main__.Calibration", Remembering):
        yield


def _pairs(
    recipes: Sequence[str], roundings: Sequence[Any]
) -> Iterator[tuple[str, Any]]:
    for name in recipes:
        for rounding in roundings if RECIPES[name].is_rounded else [None]:
            yield name, rounding


@contextmanager
def _controlled(is_control: bool) -> Iterator[None]:
    """Have the search return the full range of each group, rounded as stored."""
    if not is_control:
        yield
        return
    with patch("convert.gptq.search", _full), patch("convert.gptq.gptq", _full_gptq):
        yield


def _full(
    rows: Floats,
    precision: Precision,
    dtype: DtypeName,
    weights: Floats | None = None,
) -> Rounded:
    groups = rows.reshape(-1, precision.group_size).T
    scales, biases = (
        stored(part, dtype) for part in search.full_ranges(groups, precision.bits)
    )
    codes = search.nearest_codes(groups, scales, biases, precision.bits)
    shape = len(rows), -1
    return Rounded(
        np.ascontiguousarray(codes.T).astype(np.uint8).reshape(rows.shape),
        scales.reshape(shape),
        biases.reshape(shape),
    )


def _full_gptq(
    rows: Floats, inputs: object, precision: Precision, dtype: DtypeName
) -> Rounded:
    return _full(rows, precision, dtype)


def _table(certificates: Sequence[dict[str, Any]]) -> Iterator[str]:
    first = certificates[0]
    normalizer = first["normaliser"]
    yield (
        f"{len(first['sounds'])} sounds, {first['total']['n_tokens']} tokens, delay "
        f"{first['delay_ms']} ms; source in {first['reference_dtype']}, results "
        f"computed in {first['dtype']}"
        + (f"; WER after {normalizer}.\n" if normalizer else ".\n")
    )
    yield _line(COLUMNS)
    yield _line(["---"] * len(COLUMNS))
    total = first["total"]
    margin, wer = total["reference_pad_margin"], _percent(total["reference_wer"])
    yield _line(["(source)", *[""] * 8, _margin(margin), wer, ""])
    for certificate in certificates:
        yield _line(_row(certificate))


def _row(certificate: dict[str, Any]) -> list[str]:
    total = certificate["total"]
    interval = total["wer_interval"]
    return [
        f"`{certificate['recipe']}`",
        certificate["rounding"] or "",
        f"{certificate['bits_per_weight']:.2f}",
        amount(certificate["n_bytes"]),
        amount(certificate["bytes_per_audio_token"]),
        f"{total['token_agreement']:.2%}",
        f"{total['free_token_agreement']:.2%}",
        f"{total['mean_kl']:.2e}",
        f"{total['p99_kl']:.2e}",
        _margin(total["pad_margin"]),
        _percent(total["wer"]),
        "" if interval is None else f"{interval[0]:.2%} to {interval[1]:.2%}",
    ]


def _figures(certificate: dict[str, Any]) -> dict[str, Any]:
    names = (
        "recipe",
        "rounding",
        "bits_per_weight",
        "n_bytes",
        "bytes_per_audio_token",
    )
    return {name: certificate[name] for name in names} | certificate["total"]


def _plot(certificates: Sequence[dict[str, Any]], path: Path) -> None:
    # Local import: it takes a second, and only --write needs it.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for rounding, marker in (
        ("nearest", "o"),
        (CONTROL, "+"),
        ("search", "s"),
        ("gptq", "^"),
        ("dwq", "v"),
        (None, "x"),
    ):
        rows = [c for c in certificates if c["rounding"] == rounding]
        rows = [c for c in rows if c["total"]["mean_kl"] > 1e-8]
        x = [c["bits_per_weight"] for c in rows]
        y = [c["total"]["mean_kl"] for c in rows]
        axes.scatter(x, y, marker=marker, label=rounding or "8-bit scales")
        for certificate, a, b in zip(rows, x, y, strict=True):
            axes.annotate(certificate["recipe"], (a, b), fontsize=7)
    axes.set(yscale="log", xlabel="bits per weight", ylabel="KL to the source (nats)")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def _margin(lead: float | None) -> str:
    """Write the lead of PAD; the source may never have chosen PAD."""
    return "" if lead is None else f"{lead:.2f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
