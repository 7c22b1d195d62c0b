"""Tables of the peers' figures, as lines to read and as Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.ratios import Ratio

__all__ = ["EXPLANATION", "printed", "report", "write_report"]

# From this heading on, the file is written by hand.
EXPLANATION = "## What explains it"

_TITLES = {
    "overhead": "Overhead: true layer counts, small widths, float32",
    "floor-q4": "Floor: true widths, two layers, 4 bits, float32 activations",
    "floor-f32": "Floor: true widths, two layers, float32",
    "demo": "The demo model, float32",
}
_ROWS = {
    "decoder_step": "decoder step",
    "encoder_step": "encoder step",
    "stream": "stream in pieces of 80 ms",
    "start and load": "process started to model loaded",
    "load": "load alone",
}


def printed(regime: str, task: str, row: Mapping[str, Any]) -> str:
    """Return one line of what was measured."""
    if "ratio" not in row:
        parts = [f"{who} {_number(value)}" for who, value in row["median"].items()]
        return f"{regime:10} {task:16} {row['unit']:2} " + "   ".join(parts)
    ours = row["median"].get("ours", float("nan"))
    parts = [f"ours {_number(ours)} {row['unit']}"]
    parts += [f"{who} x {Ratio(**ratio)}" for who, ratio in row["ratio"].items()]
    parts += [f"{who}: {why}" for who, why in row.get("error", {}).items()]
    parts += [f"text of {who}: {where}" for who, where in row.get("text", {}).items()]
    if "n_tokens" in row:
        parts.append(f"tokens {row['n_tokens']}")
    return f"{regime:10} {task:16} " + "   ".join(parts)


def write_report(
    path: Path, figures: Mapping[str, Any], conditions: Mapping[str, Any]
) -> None:
    """Write the tables to `path`, and keep what stands there under EXPLANATION."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    _, heading, explained = before.partition(EXPLANATION)
    text = report(figures, conditions)
    path.write_text(f"{text}\n{heading}{explained}".rstrip() + "\n", encoding="utf-8")


def report(figures: Mapping[str, Any], conditions: Mapping[str, Any]) -> str:
    """Return the Markdown of a run's figures."""
    lines = ["# Beside mlx-audio, awni/voxmlx and transcribe.cpp", ""]
    lines += _conditions(figures, conditions)
    for name, regime in figures.items():
        if name in _TITLES:
            lines += ["", f"## {_TITLES[name]}", "", *_table(regime)]
            lines += _texts(regime)
    for found in figures.get("findings", ()):
        if found is figures["findings"][0]:
            lines += ["", "## Findings about transcribe.cpp"]
        lines += ["", f"**{found['finding']}**", "", found["case"], found["seen"]]
    return "\n".join(lines) + "\n"


def _conditions(figures: Mapping[str, Any], conditions: Mapping[str, Any]) -> list[str]:
    versions: dict[str, str] = {}
    for regime in figures.values():
        if isinstance(regime, dict):
            for found in regime["versions"].values():
                versions |= found
    named = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    blas = conditions["blas"] or "that of MLX's wheel"
    n = conditions["n_threads"]
    return [
        f"`python -m benchmarks.peers` at {conditions['commit']}: {named}.",
        f"{conditions['chip']}, {conditions['n_cores']} cores, {n} "
        f"thread{'s' if n > 1 else ''}; BLAS of the MLX programs: {blas}. None of this was "
        "timed on a Mac.",
        "",
        "The same weights in each one's format, the same sound, runs in turn. A ratio is",
        "theirs over ours, median (smallest-largest) of pairs that followed each other:",
        "above one, ours is faster.",
    ]


def _table(regime: Mapping[str, Any]) -> list[str]:
    peers = [who for who in regime["versions"] if who != "ours"]
    lines = [f"| | ours | {' | '.join(peers)} |", "|---" * (len(peers) + 2) + "|"]
    rows = [(task, row) for task, row in regime.items() if task != "versions"]
    for task, row in sorted(rows, key=lambda pair: "ratio" not in pair[1]):
        values = [f"{_number(row['median'].get('ours'))} {row['unit']}"]
        values += [_value(row, who) for who in peers]
        lines.append(f"| {_ROWS.get(task, task)} | {' | '.join(values)} |")
    return lines


def _value(row: Mapping[str, Any], who: str) -> str:
    if "ratio" not in row:
        value = row["median"].get(who)
        return "-" if value is None else f"{_number(value)} {row['unit']}"
    if who in row["ratio"]:
        return str(Ratio(**row["ratio"][who]))
    return row.get("error", {}).get(who, "-")


def _texts(regime: Mapping[str, Any]) -> Sequence[str]:
    lines = [
        f"- {_ROWS.get(task, task)}, {who}: {where}"
        for task, row in regime.items()
        for who, where in row.get("text", {}).items()
    ]
    return ["", "Text beside ours:", "", *lines] if lines else []


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
