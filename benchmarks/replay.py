"""Time to resume a crashed stream: replaying its sound against decoding it.

    python -m benchmarks.replay --minutes 60 --demo
    python -m benchmarks.replay --minutes 60 --decoded 1 --demo

The sound is the demo's sample again and again. It is decoded once, an audio token at a
time as a live stream is, and replayed with the ids of that. Then both sessions hear the
sample once more and must say the same. With --decoded only so many minutes are decoded:
their ids stand for all, and what all would take is worked out from them.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.demo_sound import sample
from voxmlx import Session
from voxmlx.cli.arguments import add_model_arguments, load_model, run_command
from voxmlx.config import AUDIO_TOKEN_MS, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.events import Event, TokenDecoded

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; its exit status, 1 if the replayed stream says otherwise."""
    return run_command(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--decoded", metavar="MINUTES", type=float, default=None)
    add_model_arguments(parser)
    arguments = parser.parse_args(argv)
    checkpoint = load_model(arguments)
    n = round(arguments.minutes * 60 * 1000 / AUDIO_TOKEN_MS) * SAMPLES_PER_AUDIO_TOKEN
    spoken = sample()
    sound = np.resize(spoken, n)

    first = Session(checkpoint)
    started = time.process_time(), time.perf_counter()
    events: list[Event] = []
    share = min(1.0, (arguments.decoded or arguments.minutes) / arguments.minutes)
    for start in range(0, round(n * share), SAMPLES_PER_AUDIO_TOKEN):
        events += first.push(sound[start : start + SAMPLES_PER_AUDIO_TOKEN])
    decoding_s = [seconds / share for seconds in _since(started)]

    second = Session(checkpoint)
    ids = [event.token_id for event in events if isinstance(event, TokenDecoded)]
    if share < 1:
        ids = np.resize(ids, n // SAMPLES_PER_AUDIO_TOKEN).tolist()
    started = time.process_time(), time.perf_counter()
    replayed = second.replay(sound, ids)
    replaying_s = _since(started)

    is_same = None
    if share == 1:
        is_same = replayed == events and second.push(spoken) == first.push(spoken)
    figures = {
        "minutes": arguments.minutes,
        "decoding_cpu_s": round(decoding_s[0], 2),
        "decoding_s": round(decoding_s[1], 2),
        "replaying_cpu_s": round(replaying_s[0], 2),
        "replaying_s": round(replaying_s[1], 2),
        "share_cpu": round(replaying_s[0] / decoding_s[0], 4),
        "share": round(replaying_s[1] / decoding_s[1], 4),
        "is_same": is_same,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if is_same is False else 0


def _since(started: tuple[float, float]) -> tuple[float, float]:
    """CPU and wall seconds."""
    return time.process_time() - started[0], time.perf_counter() - started[1]


if __name__ == "__main__":
    sys.exit(main())
