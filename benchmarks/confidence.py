"""Is a word's confidence how often such words are right?

python -m benchmarks.confidence SET... [--model DIR] [--delay 480] [--plot FILE.png]

A SET is what benchmarks.wer takes. Prints the expected calibration error (ECE, ten bins)
of the raw confidence and of the model's own map, and a table of reliability: of words
with such a confidence, how many are right. --fit DIR fits a map to all SETs, and writes
DIR/confidence.json. Ends in one JSON line.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.corpora.layouts import sets_in
from benchmarks.corpora.passages import passages
from benchmarks.provenance import closing_line
from convert.confidence_fit import (
    MIN_WORDS,
    WordOutcome,
    calibration_error,
    fit_confidence_map,
    word_outcomes,
)
from voxmlx import demo, load
from voxmlx.cli.arguments import run_command
from voxmlx.errors import AudioError
from voxmlx.text.confidence_map import IDENTITY, MAP_NAME, ConfidenceMap

__all__ = ["main", "reliability"]

_N_BINS = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and fit where that is asked for."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sets", metavar="SET", nargs="+", type=Path)
    add("--model", default=demo.NAME, help="directory or Hub id")
    add("--dtype", choices=("auto", "float16", "bfloat16", "float32"), default="auto")
    add("--delay", type=int, default=480, help="in ms")
    add("--fit", metavar="DIR", type=Path, help="write a map for the model there")
    add("--plot", metavar="FILE", type=Path, help="of reliability, as PNG")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    checkpoint = load(arguments.model, arguments.dtype)
    by_set: dict[str, list[WordOutcome]] = {}
    for path in arguments.sets:
        for speech in sets_in(path):
            found = by_set.setdefault(speech.name, [])
            for passage in passages(speech):
                samples = np.concatenate(list(passage.pieces()))
                found += word_outcomes(
                    checkpoint, samples, passage.text, arguments.delay
                )
    everything = [one for found in by_set.values() for one in found]
    mapped = checkpoint.confidence_map
    if arguments.fit is not None:
        if len(everything) < MIN_WORDS:
            raise AudioError(
                f"the sets have {len(everything)} words, expected {MIN_WORDS} to fit to"
            )
        mapped = fit_confidence_map(everything)
        (arguments.fit / MAP_NAME).write_text(mapped.to_json(), encoding="utf-8")
    print("| set | words | right | ECE, raw | ECE, mapped |\n|---|---|---|---|---|")
    rows = {name: _row(found, mapped) for name, found in by_set.items() if found}
    for name, row in rows.items():
        print(
            f"| {name} | {row['n_words']} | {row['right']:.1%} | {row['ece_raw']:.3f} "
            f"| {row['ece']:.3f} |"
        )
    for title, one in (("raw", IDENTITY), ("mapped", mapped)):
        print(f"\n{title} confidence | words | mean | right\n---|---|---|---")
        for low, n, mean, right in reliability(everything, one):
            print(
                f"{low:.1f} to {low + 1 / _N_BINS:.1f} | {n} | {mean:.2f} | {right:.2f}"
            )
    if arguments.plot is not None:
        _plot(arguments.plot, by_set, mapped)
    print(closing_line("confidence", model=arguments.model, rows=rows))
    return 0


def reliability(
    outcomes: Sequence[WordOutcome], mapped: ConfidenceMap
) -> list[tuple[float, int, float, float]]:
    """Return for each bin its lower end, words, mean confidence and share of right ones."""
    confidence = np.array([mapped(one.raw) for one in outcomes])
    is_right = np.array([one.is_right for one in outcomes])
    bins = np.minimum((confidence * _N_BINS).astype(int), _N_BINS - 1)
    return [
        (
            i / _N_BINS,
            int((bins == i).sum()),
            float(confidence[bins == i].mean()),
            float(is_right[bins == i].mean()),
        )
        for i in np.unique(bins).tolist()
    ]


def _row(outcomes: Sequence[WordOutcome], mapped: ConfidenceMap) -> dict[str, float]:
    return {
        "n_words": len(outcomes),
        "right": sum(one.is_right for one in outcomes) / len(outcomes),
        "ece_raw": calibration_error(outcomes),
        "ece": calibration_error(outcomes, mapped),
    }


def _plot(
    path: Path, by_set: dict[str, list[WordOutcome]], mapped: ConfidenceMap
) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), sharey=True)
    for title, one, axis in zip(
        ("raw", "mapped"), (IDENTITY, mapped), axes, strict=True
    ):
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for name, outcomes in by_set.items():
            rows = [row for row in reliability(outcomes, one) if row[1] >= 10]
            axis.plot([r[2] for r in rows], [r[3] for r in rows], "o-", label=name)
        axis.set(title=title, xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
    axes[0].set_ylabel("share of right words")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
