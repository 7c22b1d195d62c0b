"""Sessions stepped together against one after the other: what is it worth?

python -m benchmarks.sessions [--demo | --model ...] [--sessions 8]

The same sessions' sound, 80 ms at a time, once through a `Batch` as the server steps
them and once through each session alone, in turn, several times. Prints seconds of
sound per second of both, which is how many sessions at the pace of speech they can
have, and their ratio with its spread. Ends in one JSON line.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

import mlx.core as mx
import numpy as np

from benchmarks.provenance import closing_line, recipe_of
from benchmarks.ratios import Ratio
from benchmarks.realtime import demo_sound
from voxmlx import Checkpoint, Session
from voxmlx.batch import Batch
from voxmlx.cli.arguments import add_model_arguments, load_model, run_command
from voxmlx.config import AUDIO_TOKEN_MS, DEFAULT_DELAY_MS, SAMPLES_PER_AUDIO_TOKEN

__all__ = ["Streams", "main"]


class Streams:
    """So many sessions that hear the same sound, each from another place in it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        sound: np.ndarray,
        n: int,
        delay_ms: int,
        kv_bits: int = 16,
    ) -> None:
        self._batch = Batch(checkpoint.model)
        self._sessions = [
            Session(checkpoint, delay_ms=delay_ms, kv_bits=kv_bits) for _ in range(n)
        ]
        self._pieces = np.split(sound, len(sound) // SAMPLES_PER_AUDIO_TOKEN)
        self._n_done = 0
        for session in self._sessions:
            self._batch.add(session)
        self.one_by_one(delay_ms // AUDIO_TOKEN_MS + 1)  # past the prompts

    def together(self, n_steps: int) -> float:
        """Seconds that so many steps of all sessions take."""
        started = time.perf_counter()
        for _ in range(n_steps):
            for session, piece in zip(self._sessions, self._next(), strict=True):
                session.timeline.push(piece)
            while self._batch.n_due:
                self._batch.step()
        return time.perf_counter() - started

    def one_by_one(self, n_steps: int) -> float:
        """The same without a batch."""
        started = time.perf_counter()
        for _ in range(n_steps):
            for session, piece in zip(self._sessions, self._next(), strict=True):
                session.push(piece)
        return time.perf_counter() - started

    def _next(self) -> list[np.ndarray]:
        n, n_sessions = len(self._pieces), len(self._sessions)
        first = self._n_done
        self._n_done += 1
        return [
            self._pieces[(first + i * n // n_sessions) % n] for i in range(n_sessions)
        ]


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--turns", type=int, default=9, help="of each way")
    parser.add_argument("--steps", type=int, default=25, help="of 80 ms in a turn")
    arguments = parser.parse_args(argv)
    checkpoint = load_model(arguments)
    mx.eval(checkpoint.model.parameters())
    n = arguments.sessions
    streams = Streams(
        checkpoint,
        demo_sound(),
        n,
        arguments.delay or DEFAULT_DELAY_MS,
        arguments.kv_bits,
    )
    streams.together(2)
    taken = [
        (streams.one_by_one(arguments.steps), streams.together(arguments.steps))
        for _ in range(arguments.turns)
    ]
    serial, batched = ([turn[i] for turn in taken] for i in (0, 1))
    sound_s = n * arguments.steps * AUDIO_TOKEN_MS / 1000
    rates = {
        name: sorted(sound_s / seconds for seconds in times)
        for name, times in (("one by one", serial), ("together", batched))
    }
    ratio = Ratio.of(serial, batched)
    print(
        f"{n} sessions, {arguments.turns} turns of {arguments.steps} steps of each way"
    )
    for name, rate in rates.items():
        print(
            f"{name:12} {median(rate):7.3g} s of sound a second "
            f"({rate[0]:.3g}-{rate[-1]:.3g})"
        )
    print(f"{'ratio':12} {ratio}")
    print(
        closing_line(
            "sessions",
            model=arguments.model,
            recipe=recipe_of(checkpoint),
            dtype=checkpoint.dtype,
            sessions=n,
            one_by_one_per_s=median(rates["one by one"]),
            together_per_s=median(rates["together"]),
            ratio=asdict(ratio),
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
