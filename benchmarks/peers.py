"""python -m benchmarks.peers [--only REGIME...]: ours beside mlx-audio and voxmlx.

The peers come from PyPI, each into a virtual environment of its own, made at the first
run (--environments, a cache folder); they are no dependencies of ours. All get the same
random weights in their own format and the same sound, and take turns: what is compared
are pairs of runs that followed each other. Regimes:

overhead   true layer counts, small widths, float32: what a step costs but its products
floor-q4   true widths, two layers, a quarter of the vocabulary, 4 bits (float32
           activations)
floor-f32  the same in float32
demo       the demo's weights, five minutes of speech as a file

Ratios are theirs over ours, median (smallest-largest): above one, ours is faster. A peer
that cannot do something is reported with what it said. Ends in one JSON line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile

from benchmarks.peer_models import (
    DENSE_BITS,
    FLOOR,
    OVERHEAD,
    clean_environment,
    write_all,
    write_source,
)
from benchmarks.provenance import closing_line
from benchmarks.ratios import Ratio
from tests.sounds import speech_like
from tests.tiny import TinyModel
from voxmlx import demo

ENVIRONMENTS = Path.home() / ".cache" / "voxmlx" / "peers"
# PyPI's names, which are also their folders here.
PEERS = ("mlx-audio", "voxmlx")

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
    file_s: float
    has_products: bool = False  # the decoder step's products take turns with it


_STEPS = ("decoder_step", "encoder_step", "stream", "file")

REGIMES = {
    "overhead": Regime(OVERHEAD, DENSE_BITS, _STEPS, 20, 15, 10, 20),
    "floor-q4": Regime(FLOOR, 4, _STEPS[:3], 4, 9, 1, 1, has_products=True),
    "floor-f32": Regime(FLOOR, DENSE_BITS, _STEPS[:3], 4, 9, 1, 1, has_products=True),
    "demo": Regime(None, DENSE_BITS, ("stream", "file"), 0, 3, 30, 300),
}
_MAX_WHOLE_RUNS = 3  # of streams and files


class Worker:
    """One implementation in a process of its own."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str]):
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            text=True,
        )
        self.load_s = self._answer().get("load_s")

    def ask(self, task: str, **options: Any) -> dict[str, Any]:
        """An answer, or {"error": ...}."""
        assert self._process.stdin is not None
        try:
            print(json.dumps({"task": task, **options}), file=self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            return {"error": "the process has ended"}
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": "the process has ended"}

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def environments(folder: Path) -> dict[str, Path]:
    """The interpreter of each peer, installed if it is not there yet."""
    pythons: dict[str, Path] = {}
    for peer in PEERS:
        python = folder / peer / "bin" / "python"
        if not python.exists():
            print(f"installing {peer} into {folder / peer}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", folder / peer], check=True)
            packages = [peer, "mlx[cpu]"] if sys.platform == "linux" else [peer]
            command = [python, "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(command, check=True)
        pythons[peer] = python
    return pythons


def run(name: str, regime: Regime, pythons: Mapping[str, Path]) -> dict[str, Any]:
    """Return all figures of one regime."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        room = Path(folder)
        source = demo.DIRECTORY
        if regime.model is not None:
            source = write_source(regime.model, room / "source")
        else:
            source = room / "source"
            source.mkdir()
            for file in ("params.json", "consolidated.safetensors", "tekken.json"):
                (source / file).write_bytes((demo.DIRECTORY / file).read_bytes())
        directories = write_all(source, room / "models", regime.bits, pythons)
        sounds = _sounds(regime, room)
        workers: dict[str, Worker] = {}
        for who, directory in directories.items():
            workers[who] = _worker(who, directory, pythons)
            stack.callback(workers[who].close)
        figures: dict[str, Any] = {
            "load_s": {who: worker.load_s for who, worker in workers.items()}
        }
        for task in regime.tasks:
            figures[task] = _in_turns(task, workers, regime, sounds)
            _print(name, task, figures[task])
        figures["resident_peak_mb"] = {
            who: worker.ask("memory").get("resident_peak_mb")
            for who, worker in workers.items()
        }
        for one in ("load_s", "resident_peak_mb"):
            shown = "  ".join(
                f"{who} {value:.2f}" if value is not None else f"{who} -"
                for who, value in figures[one].items()
            )
            print(f"{name:10} {one:16} {shown}", flush=True)
        return figures


def _worker(who: str, directory: Path, pythons: Mapping[str, Path]) -> Worker:
    here = Path(__file__).parent
    environment = clean_environment()
    if who == "ours":
        environment["PYTHONPATH"] = str(here.parent)
        command = [sys.executable, "-m", "benchmarks.own_worker", directory]
        return Worker(command, environment)
    return Worker([pythons[who], here / "peer_worker.py", who, directory], environment)


def _sounds(regime: Regime, room: Path) -> dict[str, Any]:
    """What is streamed and what is transcribed, as files."""
    longest = int(16_000 * max(regime.stream_s, regime.file_s))
    if regime.model is None:
        spoken, _ = soundfile.read(demo.SAMPLE, dtype="float32")
        sound = np.resize(spoken, longest)
    else:
        sound = speech_like(longest, seed=1)
    np.save(room / "stream.npy", sound[: int(16_000 * regime.stream_s)])
    soundfile.write(
        room / "file.wav", sound[: int(16_000 * regime.file_s)], 16_000, "PCM_16"
    )
    return {
        "stream": {"sound": str(room / "stream.npy")},
        "file": {"path": str(room / "file.wav")},
    }


def _in_turns(
    task: str, workers: Mapping[str, Worker], regime: Regime, sounds: Mapping[str, Any]
) -> dict[str, Any]:
    """Every turn asks all of them, and begins with another one."""
    is_step = task not in sounds
    options = sounds.get(task, {"n": regime.n_steps, "warm": 10})
    asked = list(workers)
    if task == "decoder_step" and regime.has_products:
        asked.append("products")
    n_turns = regime.n_turns if is_step else min(regime.n_turns, _MAX_WHOLE_RUNS)
    taken: dict[str, list[float]] = {who: [] for who in asked}
    said: dict[str, Any] = {}
    for turn in range(n_turns):
        first = turn % len(asked)
        for who in asked[first:] + asked[:first]:
            if who in said and "error" in said[who]:
                continue
            worker = workers["ours" if who == "products" else who]
            answer = worker.ask("products" if who == "products" else task, **options)
            said[who] = answer
            if "error" not in answer:
                taken[who].append(
                    median(answer["ms"]) if is_step else answer["seconds"]
                )
    return compared(taken, said, "ms" if is_step else "s")


def compared(
    taken: Mapping[str, list[float]], said: Mapping[str, Mapping[str, Any]], unit: str
) -> dict[str, Any]:
    """Medians, ratios to ours, and what went wrong."""
    ours = taken["ours"]
    figures: dict[str, Any] = {"unit": unit, "median": {}, "ratio": {}}
    for who, times in taken.items():
        answer = said.get(who, {})
        if "error" in answer or len(times) != len(ours):
            figures.setdefault("error", {})[who] = answer.get("error", "no answer")
            continue
        figures["median"][who] = median(times)
        if who != "ours":
            figures["ratio"][who] = asdict(Ratio.of(times, ours))
        if "n_tokens" in answer:
            figures.setdefault("n_tokens", {})[who] = answer["n_tokens"]
    return figures


def _print(name: str, task: str, figures: Mapping[str, Any]) -> None:
    unit = figures["unit"]
    parts = [f"ours {figures['median'].get('ours', float('nan')):.2f} {unit}"]
    parts += [f"{who} x {Ratio(**ratio)}" for who, ratio in figures["ratio"].items()]
    parts += [f"{who}: {why}" for who, why in figures.get("error", {}).items()]
    if "n_tokens" in figures:
        parts.append(f"tokens {figures['n_tokens']}")
    print(f"{name:10} {task:16} " + "   ".join(parts), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--tasks", nargs="+", choices=_STEPS, default=list(_STEPS))
    parser.add_argument("--turns", type=int, help="of each task, instead of its own")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    arguments = parser.parse_args()
    pythons = environments(arguments.environments)
    figures: dict[str, Any] = {}
    for name in arguments.only:
        regime = REGIMES[name]
        tasks = tuple(task for task in regime.tasks if task in arguments.tasks)
        n_turns = arguments.turns or regime.n_turns
        figures[name] = run(
            name, replace(regime, tasks=tasks, n_turns=n_turns), pythons
        )
    print(closing_line("peers", ratio_is="theirs / ours", **figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
