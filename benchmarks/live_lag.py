"""Live at the pace of speech: how long after its sound does a token's text come?

python -m benchmarks.live_lag [--seconds 60] [--model demo] [--delay 480]

Plays the demo's sample, over and over, through the loop of `voxmlx.live` in blocks of
10 ms, and prints the lag from the moment the last block of an audio token was there to
the token's events, beside the time of a step. Ends in one JSON line.
"""

import argparse
import sys
import time
from dataclasses import asdict

import numpy as np

from benchmarks.demo_sound import sample
from benchmarks.provenance import closing_line
from voxmlx import demo, load
from voxmlx.audio.block_queue import Block
from voxmlx.config import SAMPLE_RATE
from voxmlx.live.captions import Captions
from voxmlx.live.stream_metrics import StreamMetrics
from voxmlx.session import Session

BLOCK_SAMPLES = SAMPLE_RATE // 100


class Loop:
    """A source that repeats one sound in real time for so many seconds."""

    name = "loop"

    def __init__(self, sound: np.ndarray, seconds: float) -> None:
        self.is_ended = False
        self._sound = sound
        self._n_blocks = round(seconds * 100)
        self._n_given = 0
        self._started = time.monotonic()

    def read(self, timeout_s: float) -> list[Block]:
        # A block is there when its last sample has been spoken, not when it is asked for.
        n_due = int((time.monotonic() - self._started) * 100)
        if n_due == self._n_given and timeout_s:
            time.sleep(0.001)
        n_due = min(n_due, self._n_blocks)
        blocks = [self._block(i) for i in range(self._n_given, n_due)]
        self._n_given = n_due
        self.is_ended = n_due == self._n_blocks
        return blocks

    def _block(self, index: int) -> Block:
        start = index * BLOCK_SAMPLES % (len(self._sound) - BLOCK_SAMPLES)
        samples = self._sound[start : start + BLOCK_SAMPLES]
        return Block(samples, self._started + (index + 1) / 100)

    def stop(self) -> None:
        self.is_ended = True

    def close(self) -> None: ...


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--model", default=demo.NAME, help="directory or Hub id")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--delay", type=int, default=480, help="in ms")
    args = parser.parse_args()
    checkpoint = load(args.model, args.dtype)
    sound = sample()
    warm = Session(checkpoint, delay_ms=args.delay)
    warm.push(sound[: 2 * SAMPLE_RATE])
    metrics = StreamMetrics()
    session = Session(checkpoint, delay_ms=args.delay)
    Captions(Loop(sound, args.seconds), session, [], metrics).run()
    figures = asdict(metrics.figures())
    for name, value in figures.items():
        print(f"{name:>16} {value:10.2f}")
    rounded = {name: round(value, 3) for name, value in figures.items()}
    print(closing_line("live_lag", model=args.model, delay_ms=args.delay, **rounded))
    return 0


if __name__ == "__main__":
    sys.exit(main())
