"""python -m benchmarks.peers [--only REGIME...]: ours beside three other programs.

The peers are mlx-audio, awni's voxmlx and transcribe.cpp. They come from PyPI, each into
a virtual environment of its own, made at the first run (--environments, a cache folder).
All get the same weights in their own format and the same sound, and take turns: what is
compared are pairs of runs that followed each other. Regimes:

overhead   true layer counts, small widths, float32: what a step costs but its products
floor-q4   true widths, two layers, a quarter of the vocabulary, 4 bits (float32
           activations)
floor-f32  the same in float32
demo       the demo's weights: a stream in pieces of 80 ms, files of one and five minutes,
           the time to load and the memory of fresh processes
findings   what transcribe.cpp does with delays and windows, each with a case

Ratios are theirs over ours, median (smallest-largest): above one, ours is faster. A peer
that cannot do something is reported with what it said. A peer that took over ten times
as long as ours for a short file is not asked for a longer one. One that takes more than
--limit seconds for an answer is stopped.

A run of all regimes writes its tables to benchmarks/results/peers.md, others do so with
--results FILE. What stands there from the heading "What explains it" on is kept. Ends in
one JSON line.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile

from benchmarks.peer_findings import findings, first_difference
from benchmarks.peer_models import (
    DENSE_BITS,
    FLOOR,
    OVERHEAD,
    write_all,
    write_source,
)
from benchmarks.peer_process import (
    ENVIRONMENTS,
    PEERS,
    PeerSettings,
    Worker,
    environments,
)
from benchmarks.peer_report import printed, write_report
from benchmarks.provenance import closing_line, machine
from benchmarks.ratios import Ratio
from tests.sounds import speech_like
from tests.tiny import TinyModel
from voxmlx import demo

RESULTS = Path(__file__).parent / "results" / "peers.md"
FINDINGS = "findings"

__all__ = ["REGIMES", "Regime", "compared", "main"]


@dataclass(frozen=True, slots=True)
class Regime:
    """One setting of the peers: weights (None: the demo's), their bits, the amount."""

    model: TinyModel | None
    bits: int
    tasks: tuple[str, ...]
    n_steps: int  # of a turn
    n_turns: int
    stream_s: float
    files_s: tuple[int, ...]
    has_products: bool = False  # the decoder step's products take turns with it
    n_loads: int = 1  # fresh processes of each


_STEPS = ("decoder_step", "encoder_step", "stream", "file")

REGIMES = {
    "overhead": Regime(OVERHEAD, DENSE_BITS, _STEPS, 20, 15, 10, (20,)),
    "floor-q4": Regime(FLOOR, 4, _STEPS[:3], 4, 9, 1, (1,), has_products=True),
    "floor-f32": Regime(
        FLOOR, DENSE_BITS, _STEPS[:3], 4, 9, 1, (1,), has_products=True
    ),
    "demo": Regime(None, DENSE_BITS, _STEPS[2:], 0, 5, 30, (60, 300), n_loads=3),
}
_MAX_WHOLE_RUNS = 5  # of streams and files
_LONG_S, _MAX_LONG_RUNS = 200, 2  # of a file longer than that
# Whose short file takes longer than so many times ours is not asked for a longer one.
_TOO_SLOW = 10


def run(name: str, regime: Regime, settings: PeerSettings) -> dict[str, Any]:
    """Return all figures of one regime."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        room = Path(folder)
        source = room / "source"
        if regime.model is not None:
            write_source(regime.model, source)
        else:
            source.mkdir()
            for file in ("params.json", "consolidated.safetensors", "tekken.json"):
                (source / file).write_bytes((demo.DIRECTORY / file).read_bytes())
        models = write_all(source, room / "models", regime.bits, settings.pythons)
        sounds = _sounds(regime, room)
        slow: dict[str, str] = {}
        figures = _in_fresh_processes(models, regime, sounds, settings, slow)
        for task, row in figures.items():
            print(printed(name, task, row), flush=True)
        workers = {
            who: stack.enter_context(settings.start(who, path))
            for who, path in models.items()
        }
        figures["versions"] = {who: one.versions for who, one in workers.items()}
        for task in regime.tasks:
            files = [name for name in sounds if name.startswith("file")]
            for one in files if task == "file" else [task]:
                figures[one] = _in_turns(one, workers, regime, sounds, slow)
                print(printed(name, one, figures[one]), flush=True)
        return figures


def _sounds(regime: Regime, room: Path) -> dict[str, dict[str, str]]:
    """What is streamed and what is transcribed, as files."""
    longest = int(16_000 * max(regime.stream_s, *regime.files_s))
    if regime.model is None:
        spoken, _ = soundfile.read(demo.SAMPLE, dtype="float32")
        sound = np.resize(spoken, longest)
    else:
        sound = speech_like(longest, seed=1)
    np.save(room / "stream.npy", sound[: int(16_000 * regime.stream_s)])
    sounds = {"stream": {"sound": str(room / "stream.npy")}}
    for seconds in regime.files_s:
        path = room / f"file-{seconds}.wav"
        soundfile.write(path, sound[: 16_000 * seconds], 16_000, "PCM_16")
        sounds[f"file, {seconds} s"] = {"path": str(path)}
    return sounds


def _in_fresh_processes(
    models: Mapping[str, Path],
    regime: Regime,
    sounds: Mapping[str, Mapping[str, str]],
    settings: PeerSettings,
    slow: dict[str, str],
) -> dict[str, Any]:
    """Return the times until a model is loaded, and the memory of one file each.

    Who was too slow with a file is added to `slow`.
    """
    ready: dict[str, list[float]] = {who: [] for who in models}
    load: dict[str, list[float]] = {who: [] for who in models}
    names = [task for task in sounds if task.startswith("file")]
    peaks: dict[str, dict[str, Any]] = {f"peak, {name}": {} for name in names}
    took: dict[str, list[float]] = {who: [] for who in models}
    for turn in range(max(regime.n_loads, len(names))):
        for who in _from(list(models), turn):
            with settings.start(who, models[who]) as worker:
                ready[who].append(worker.ready_s)
                load[who].append(worker.load_s or float("nan"))
                if turn >= len(names) or "file" not in regime.tasks or who in slow:
                    continue
                answer = worker.ask("file", **sounds[names[turn]])
                if "error" not in answer:
                    took[who].append(answer["seconds"])
                peak = worker.ask("memory").get("resident_peak_mb")
                peaks[f"peak, {names[turn]}"][who] = peak
        if turn < len(names):
            _note_slow(names[turn], took, slow)
    figures: dict[str, Any] = {
        "start and load": compared(ready, {}, "s"),
        "load": compared(load, {}, "s"),
    }
    for task, row in peaks.items():
        if row:
            figures[task] = {"unit": "MB", "median": row}
    return figures


def _from(names: list[str], turn: int) -> list[str]:
    """Let every turn begin with another one."""
    first = turn % len(names)
    return names[first:] + names[:first]


def _in_turns(
    task: str,
    workers: Mapping[str, Worker],
    regime: Regime,
    sounds: Mapping[str, Mapping[str, str]],
    slow: dict[str, str],
) -> dict[str, Any]:
    """Every turn asks all of them; `slow` are those that are asked for no more files."""
    is_step = task not in sounds
    options: Mapping[str, Any] = sounds.get(task, {"n": regime.n_steps, "warm": 10})
    is_file = task.startswith("file")
    asked = list(workers)
    if task == "decoder_step" and regime.has_products:
        asked.append("products")
    n_turns = regime.n_turns if is_step else min(regime.n_turns, _MAX_WHOLE_RUNS)
    taken: dict[str, list[float]] = {who: [] for who in asked}
    said: dict[str, Any] = {}
    if is_file:
        said |= {who: {"error": why} for who, why in slow.items()}
    if is_file and regime.files_s[-1] > _LONG_S and task == list(sounds)[-1]:
        n_turns = min(n_turns, _MAX_LONG_RUNS)
    for turn in range(n_turns):
        for who in _from(asked, turn):
            if who in said and "error" in said[who]:
                continue
            worker = workers["ours" if who == "products" else who]
            name = "products" if who == "products" else task.partition(",")[0]
            answer = worker.ask(name, **options)
            said[who] = answer
            if "error" not in answer:
                taken[who].append(
                    median(answer["ms"]) if is_step else answer["seconds"]
                )
    if is_file:
        _note_slow(task, taken, slow)
    return compared(taken, said, "ms" if is_step else "s")


def _note_slow(
    task: str, taken: Mapping[str, list[float]], slow: dict[str, str]
) -> None:
    """Add to `slow` who took too long for a file, and why it is asked for no more."""
    for who, times in taken.items():
        if times and times[-1] > _TOO_SLOW * taken["ours"][-1]:
            slow.setdefault(who, f"not asked: {task} took it {times[-1]:.0f} s")


def compared(
    taken: Mapping[str, list[float]], said: Mapping[str, Mapping[str, Any]], unit: str
) -> dict[str, Any]:
    """Return medians, ratios to ours, what went wrong, and whose text differs where."""
    ours = taken["ours"]
    figures: dict[str, Any] = {"unit": unit, "median": {}, "ratio": {}}
    text: str | None = said.get("ours", {}).get("text")
    for who, times in taken.items():
        answer = said.get(who, {})
        if "error" in answer or len(times) != len(ours):
            figures.setdefault("error", {})[who] = answer.get("error", "no answer")
            continue
        figures["median"][who] = median(times)
        if who != "ours":
            figures["ratio"][who] = asdict(Ratio.of(times, ours))
        if answer.get("n_tokens") is not None:
            figures.setdefault("n_tokens", {})[who] = answer["n_tokens"]
        their_text: str | None = answer.get("text")
        if who != "ours" and text is not None and their_text is not None:
            where = first_difference(text, their_text) or "equal"
            figures.setdefault("text", {})[who] = where
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.peers",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    every = [*REGIMES, FINDINGS]
    parser.add_argument("--only", nargs="+", choices=every, default=every)
    parser.add_argument("--tasks", nargs="+", choices=_STEPS, default=list(_STEPS))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--turns", type=int, help="of each task, instead of its own")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    parser.add_argument(
        "--threads",
        type=int,
        default=int(os.environ.get("OMP_NUM_THREADS", "1")),
        help="of every BLAS, and of transcribe.cpp (default: OMP_NUM_THREADS, or 1)",
    )
    parser.add_argument(
        "--blas", metavar="LIBRARY", help="one for MLX's, such as libopenblas.so.0"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=120,
        metavar="S",
        help="stop a peer that takes longer for one answer (default: 120)",
    )
    parser.add_argument("--results", type=Path, help="Markdown file of the tables")
    arguments = parser.parse_args()
    pythons = environments(arguments.environments, arguments.peers)
    settings = PeerSettings(pythons, arguments.threads, arguments.blas, arguments.limit)
    figures: dict[str, Any] = {}
    for name in [name for name in arguments.only if name in REGIMES]:
        regime = REGIMES[name]
        tasks = tuple(task for task in regime.tasks if task in arguments.tasks)
        n_turns = arguments.turns or regime.n_turns
        regime = replace(regime, tasks=tasks, n_turns=n_turns)
        figures[name] = run(name, regime, settings)
    if FINDINGS in arguments.only and "transcribe-cpp" in pythons:
        figures[FINDINGS] = findings(settings)
        for finding in figures[FINDINGS]:
            print(f"{finding['finding']}\n  {finding['case']}\n  {finding['seen']}")
    results = arguments.results
    if results is None and set(arguments.only) == set(every) and not arguments.turns:
        results = RESULTS
    conditions = {"n_threads": arguments.threads, "blas": arguments.blas}
    if results is not None:
        write_report(results, figures, {**machine(), **conditions})
    print(closing_line("peers", ratio_is="theirs / ours", **conditions, **figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
