"""The gain of speculation: the share of accepted ids, and the time saved.

python -m benchmarks.speculation [FOLDER...] [--model demo] [--delays 80 480 2400]
                                 [--seconds 60] [--turns 5]

Transcribes what a FOLDER holds (as benchmarks.wer reads it; the demo's sample
without one), as one stream of at most so many seconds, with and without speculation in
turn, and checks that the ids are equal. Prints per folder and delay how many guesses
were accepted, how many ids a pass gave, and how many times faster the decoding was;
then what passes over several positions cost beside one over one: where that is about
1, as on a GPU, guesses are free; where it grows with the positions, few are made.
Ends in one JSON line.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import mlx.core as mx
import numpy as np

from benchmarks.demo_sound import sample
from benchmarks.provenance import closing_line
from benchmarks.ratios import Ratio
from benchmarks.speech_sets import utterances
from voxmlx import Checkpoint, Session, TokenDecoded, demo, load
from voxmlx.cli.arguments import run_command
from voxmlx.config import SAMPLE_RATE
from voxmlx.decoding.speculation import MAX_POSITIONS, Speculation
from voxmlx.errors import VoxmlxError

__all__ = ["SpeculationRow", "main", "measure", "pass_costs"]

LENGTHS = (1, 2, 4, 8, MAX_POSITIONS)


@dataclass(frozen=True, slots=True)
class SpeculationRow:
    """One sound at one delay."""

    name: str
    delay_ms: int
    n_ids: int
    acceptance: float  # of the guesses
    ids_per_pass: float
    speed_up: Ratio  # seconds without over seconds with, encoder included

    def __str__(self) -> str:
        return (
            f"{self.name:20} {self.delay_ms:5} ms {self.n_ids:6} ids  "
            f"{100 * self.acceptance:5.1f} % accepted  "
            f"{self.ids_per_pass:5.2f} ids per pass  {self.speed_up} x"
        )


def measure(
    checkpoint: Checkpoint, name: str, sound: np.ndarray, delay_ms: int, n_turns: int
) -> SpeculationRow:
    """With and without, in turn. Raises VoxmlxError if an id differs."""
    plain_s: list[float] = []
    guessing_s: list[float] = []
    counted = Speculation()
    n_ids = 0
    for _ in range(n_turns):
        expected, seconds, _ = _decoded(checkpoint, sound, delay_ms, speculate=False)
        plain_s.append(seconds)
        ids, seconds, speculation = _decoded(
            checkpoint, sound, delay_ms, speculate=True
        )
        guessing_s.append(seconds)
        if ids != expected:
            raise VoxmlxError(
                f"{name} at {delay_ms} ms: speculation changed an id, expected none"
            )
        assert speculation is not None
        counted.n_passes += speculation.n_passes
        counted.n_guessed += speculation.n_guessed
        counted.n_accepted += speculation.n_accepted
        n_ids = len(ids)
    return SpeculationRow(
        name,
        delay_ms,
        n_ids,
        counted.n_accepted / max(1, counted.n_guessed),
        n_ids * n_turns / max(1, counted.n_passes),
        Ratio.of(plain_s, guessing_s),
    )


def _decoded(
    checkpoint: Checkpoint, sound: np.ndarray, delay_ms: int, *, speculate: bool
) -> tuple[list[int], float, Speculation | None]:
    session = Session(checkpoint, delay_ms=delay_ms, speculate=speculate)
    began = time.perf_counter()
    events = session.push(sound) + session.finish()
    seconds = time.perf_counter() - began
    ids = [e.token_id for e in events if isinstance(e, TokenDecoded)]
    return ids, seconds, session.speculation


def pass_costs(checkpoint: Checkpoint, n_turns: int = 20) -> dict[int, float]:
    """Median seconds of a decoder pass, by its number of positions, in turn."""
    decoder = checkpoint.model.decoder
    state = checkpoint.model.open_state(n_trimmable=MAX_POSITIONS).decoder
    taken: dict[int, list[float]] = {n: [] for n in LENGTHS}
    for _ in range(n_turns):
        for n in LENGTHS:
            embeddings = mx.zeros((1, n, checkpoint.config.decoder.dim), decoder.dtype)
            mx.eval(embeddings, state.cache.rings)
            began = time.perf_counter()
            mx.eval(decoder.step(embeddings, state))
            taken[n].append(time.perf_counter() - began)
            state.cache.trim(n)
    return {n: median(seconds) for n, seconds in taken.items()}


def _sounds(folders: Sequence[Path], seconds: float) -> dict[str, np.ndarray]:
    n = round(seconds * SAMPLE_RATE)
    if not folders:
        return {"sample": sample()[:n]}
    sounds: dict[str, np.ndarray] = {}
    for folder in folders:
        # An utterance is rarely shorter than a second.
        parts = [u.samples for u in islice(utterances(folder), round(seconds) + 1)]
        sounds[folder.name] = np.concatenate(parts)[:n]
    return sounds


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="*", type=Path)
    parser.add_argument("--model", default=demo.NAME, help="directory or Hub id")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--delays", type=int, nargs="+", default=[80, 480, 2400])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each folder")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args(argv)
    checkpoint = load(args.model, args.dtype)
    rows: list[SpeculationRow] = []
    for name, sound in _sounds(args.folders, args.seconds).items():
        for delay_ms in args.delays:
            rows.append(measure(checkpoint, name, sound, delay_ms, args.turns))
            print(rows[-1], flush=True)
    costs = pass_costs(checkpoint)
    print("a pass over n positions, beside one over 1:")
    for n, seconds in costs.items():
        ratio = seconds / costs[1]
        print(f"{n:4} {1e3 * seconds:8.2f} ms {ratio:6.2f} {ratio / n:6.2f} each")
    print(
        closing_line(
            "speculation",
            model=args.model,
            dtype=checkpoint.dtype,
            rows=[asdict(row) for row in rows],
            pass_ms={n: round(1e3 * seconds, 3) for n, seconds in costs.items()},
        )
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return run_command(lambda: _run(argv))


if __name__ == "__main__":
    sys.exit(main())
