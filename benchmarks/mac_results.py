"""python -m benchmarks.mac_results [FILE ...]: the table of Macs that were measured.

Each file is what `voxmlx doctor --full` writes. Without a file, those in
benchmarks/results/macs are read; `docs/macs.md` has their table.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from voxmlx.doctor.full_report import FORMAT

__all__ = ["COLUMNS", "FOLDER", "main", "table"]

FOLDER = Path(__file__).parent / "results" / "macs"

COLUMNS = (
    "Mac",
    "memory",
    "system",
    "MLX",
    "model",
    "`--kv-bits`",
    "power",
    "start, live",
    "full, live",
    "full, 95 %",
    "full, 99 %",
    "tokens/s of 12.5",
    "faults",
)


def table(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a Markdown table, a row for each report."""
    yield _line(COLUMNS)
    yield "|" + "---|" * len(COLUMNS)
    for report in sorted(
        reports, key=lambda r: (r["machine"]["processor"], r["model"])
    ):
        yield _line(_row(report))


def _row(report: dict[str, Any]) -> list[str]:
    machine = report["machine"]
    steps = {(s["is_paced"], s["is_full"]): s for s in report["measured_steps"]}
    start, full = steps[True, False], steps[True, True]
    return [
        f"{machine['processor']} ({machine['gpu'] or 'no Metal'})",
        f"{(machine['memory_bytes'] or 0) / 2**30:.0f} GB",
        machine["system"],
        machine["packages"]["mlx"],
        report["model"],
        str(full["kv_bits"]),
        report["power"],
        f"{start['median_ms']:.1f} ms",
        f"{full['median_ms']:.1f} ms",
        f"{full['p95_ms']:.1f} ms",
        f"{full['p99_ms']:.1f} ms",
        f"{steps[False, True]['tokens_per_s']:.1f}",
        str(len(report["faults"])),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of the files that are named, or of those in the repository."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("file", nargs="*", type=Path)
    paths: list[Path] = parser.parse_args(argv).file or sorted(FOLDER.glob("*.json"))
    reports: list[dict[str, Any]] = []
    for path in paths:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report.get("format") != FORMAT:
            sys.exit(
                f"{path} has the format {report.get('format')}, expected {FORMAT}; "
                "write it again: voxmlx doctor --full FILE"
            )
        reports.append(report)
    print("\n".join(table(reports)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
