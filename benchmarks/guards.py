"""Words that a model finds where nobody speaks, without guards and with them.

python -m benchmarks.guards [--model demo] [--seconds 150] [--seeds 0 1 2 3]
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.non_speech import NON_SPEECH
from benchmarks.provenance import closing_line
from voxmlx import GUARDS, Batch, Checkpoint, Session, demo, load
from voxmlx.cli.arguments import run_command
from voxmlx.events import GuardActed, WordFinal

__all__ = ["GuardRow", "main", "measure"]


@dataclass(frozen=True, slots=True)
class GuardRow:
    """Words of one sound without and with guards, and how often guards acted."""

    sound: str
    seed: int
    seconds: float
    n_words_without: int
    n_words_with: int
    n_acted: int

    def __str__(self) -> str:
        return (
            f"| {self.sound} | {self.seed} | {self.n_words_without} | "
            f"{self.n_words_with} | {self.n_acted} |"
        )


def measure(
    checkpoint: Checkpoint, sounds: Sequence[tuple[str, int]], seconds: float
) -> list[GuardRow]:
    """Decode sounds of a name and a seed, all in one batch."""
    batch = Batch(checkpoint.model)
    pairs: list[tuple[Session, Session]] = []
    for name, seed in sounds:
        rng = np.random.default_rng(seed)
        samples = NON_SPEECH[name](int(16_000 * seconds), rng)
        pairs.append((_opened(checkpoint, samples, ()), _guarded(checkpoint, samples)))
    for session in (session for pair in pairs for session in pair):
        batch.add(session)
    n_words = {session: 0 for pair in pairs for session in pair}
    n_acted = dict(n_words)
    while len(batch):
        for session, events in batch.step():
            n_words[session] += sum(isinstance(e, WordFinal) for e in events)
            n_acted[session] += sum(isinstance(e, GuardActed) for e in events)
    return [
        GuardRow(name, seed, seconds, n_words[plain], n_words[own], n_acted[own])
        for (name, seed), (plain, own) in zip(sounds, pairs, strict=True)
    ]


def _guarded(checkpoint: Checkpoint, samples: NDArray[np.float32]) -> Session:
    return _opened(checkpoint, samples, tuple(GUARDS))


def _opened(
    checkpoint: Checkpoint, samples: NDArray[np.float32], guards: Sequence[str]
) -> Session:
    session = Session(checkpoint, guards=guards)
    session.timeline.push(samples)
    session.timeline.end()
    return session


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit status."""
    return run_command(lambda: _run(_parse_arguments(argv)))


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", default=demo.NAME, help="directory or Hub id")
    add("--dtype", choices=("auto", "float16", "bfloat16", "float32"), default="auto")
    add("--seconds", type=float, default=150.0, help="of every sound")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    return parser.parse_args(argv)


def _run(arguments: argparse.Namespace) -> int:
    checkpoint = load(arguments.model, arguments.dtype)
    rows: list[GuardRow] = []
    print("| sound | seed | words without | with guards | guards acted |")
    print("|---|---|---|---|---|")
    for seed in arguments.seeds:
        sounds = [(name, seed) for name in NON_SPEECH]
        for row in measure(checkpoint, sounds, arguments.seconds):
            print(row, flush=True)
            rows.append(row)
    print(
        closing_line(
            "guards",
            model=checkpoint.name,
            dtype=checkpoint.dtype,
            rows=[asdict(row) for row in rows],
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
