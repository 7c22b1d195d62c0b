"""Hours of sound through one session: is memory flat, and the time of a step?

python -m benchmarks.long_stream [--hours 3] [--model DIR_OR_ID] [--dtype float32]

Pushes sound as fast as the machine allows and prints, per minute of sound, the
resident memory and the time per 80 ms of sound. The fifth minute and the last come in
pieces of 80 ms, all others in pieces of 2.4 s, which give the same ids and leave the
same state. Without --model it makes a tiny random checkpoint of the true
architecture, whose rings wrap every few seconds.

A step hours later is compared with one at minute five in two ways: by the medians of
those minutes, and, because the speed of a shared machine changes from hour to hour, by
a second session that rests from minute five on and hears a last minute in turn with the
old one, piece by piece. Ends in one JSON line; exit status 1 if memory grew by 2 MB or
if the old session's step, in turn with the rested one's, is over 5 % longer.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import psutil

from benchmarks.provenance import closing_line
from tests.sounds import speech_like
from tests.tiny import TinyModel
from voxmlx import Checkpoint, Session, load
from voxmlx.config import SAMPLES_PER_AUDIO_TOKEN

STEPS_PER_MINUTE = 750
TOKENS_PER_PIECE = 30
REFERENCE_MINUTE = 5
MAX_GROWTH_MB = 2.0
MAX_SLOWDOWN = 1.05


@dataclass(frozen=True, slots=True)
class StreamMinute:
    """One minute of sound: memory at its end, and what a step took, in ms."""

    resident_mb: float
    mlx_mb: float
    step_ms: float


@dataclass(frozen=True, slots=True)
class Turns:
    """Median step in ms of two sessions that heard a minute in turn."""

    old_ms: float
    rested_ms: float


class LoopedSound:
    """Twelve seconds, repeated for ever."""

    def __init__(self) -> None:
        self._samples = speech_like(150 * SAMPLES_PER_AUDIO_TOKEN, seed=1)

    def minute(self, tokens_per_piece: int = 1) -> Iterator[np.ndarray]:
        """A minute of it, in pieces of so many audio tokens."""
        pieces = np.split(self._samples, 150 // tokens_per_piece)
        n_pieces = STEPS_PER_MINUTE // tokens_per_piece
        return itertools.islice(itertools.cycle(pieces), n_pieces)


def push(session: Session, piece: np.ndarray) -> float:
    """Push one piece and say what it took, in ms per audio token."""
    start = time.perf_counter()
    session.push(piece)
    passed_ms = (time.perf_counter() - start) * 1000
    return passed_ms * SAMPLES_PER_AUDIO_TOKEN / len(piece)


def tokens_per_piece(minute: int, n_minutes: int) -> int:
    is_measured = minute in (REFERENCE_MINUTE - 1, n_minutes - 1)
    return 1 if is_measured else TOKENS_PER_PIECE


def run(checkpoint: Checkpoint, minutes: int) -> tuple[list[StreamMinute], Turns]:
    """Stream `minutes` of sound through one session, then the minute in turns."""
    process = psutil.Process()
    sound = LoopedSound()
    old, rested = Session(checkpoint), Session(checkpoint)
    for minute in range(REFERENCE_MINUTE):
        for piece in sound.minute(tokens_per_piece(minute, minutes)):
            rested.push(piece)
    measured: list[StreamMinute] = []
    for minute in range(minutes):
        pieces = sound.minute(tokens_per_piece(minute, minutes))
        step_ms = statistics.median(push(old, piece) for piece in pieces)
        resident = process.memory_info().rss
        in_mlx = mx.get_active_memory() + mx.get_cache_memory()
        measured.append(StreamMinute(resident / 2**20, in_mlx / 2**20, step_ms))
        if minute < REFERENCE_MINUTE or (minute + 1) % 10 == 0:
            print(_row(minute + 1, measured[-1]), flush=True)
    times = [(push(old, piece), push(rested, piece)) for piece in sound.minute()]
    old_ms, rested_ms = (statistics.median(t) for t in zip(*times, strict=True))
    return measured, Turns(old_ms, rested_ms)


def _row(minute: int, m: StreamMinute) -> str:
    return f"{minute:>6} {m.resident_mb:>12.2f} {m.mlx_mb:>8.2f} {m.step_ms:>9.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--model", help="directory or Hub id; default: tiny, random")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    minutes = round(args.hours * 60)
    if minutes <= REFERENCE_MINUTE:
        parser.error(f"--hours must be more than {REFERENCE_MINUTE} minutes")

    with tempfile.TemporaryDirectory() as directory:
        model = args.model or TinyModel().write(Path(directory))
        checkpoint = load(model, args.dtype)
    print("minute  resident MB   mlx MB   step ms")
    measured, turns = run(checkpoint, minutes)
    print(_row(minutes, measured[-1]))
    print(
        f"in turn: old session {turns.old_ms:.3f} ms, rested {turns.rested_ms:.3f} ms"
    )
    reference, last = measured[REFERENCE_MINUTE - 1], measured[-1]
    growth = last.resident_mb - reference.resident_mb
    slowdown = turns.old_ms / turns.rested_ms
    line = closing_line(
        "long_stream",
        minutes=minutes,
        growth_mb=round(growth, 3),
        step_ratio_in_turn=round(slowdown, 4),
        step_ratio_of_minutes=round(last.step_ms / reference.step_ms, 4),
        step_ms=round(last.step_ms, 3),
    )
    print(line)
    return int(growth >= MAX_GROWTH_MB or slowdown > MAX_SLOWDOWN)


if __name__ == "__main__":
    sys.exit(main())
