"""python -m benchmarks.silence: CPU time and passes that blocks of silence save.

A minute of faint noise, step by step and in blocks, by turns: CPU seconds, steps of the
encoder and passes of the decoder. Then sentences with pauses at the pace of speech: lag
of the words after a pause, both ways. Ends in one JSON line.
"""

import argparse
import sys
import time
from dataclasses import asdict
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.provenance import closing_line
from benchmarks.ratios import Ratio, Spread
from tests.held_out import held_out, one_stream
from voxmlx import Checkpoint, Session, TextDelta
from voxmlx.cli.arguments import add_model_arguments, load_model, run_command
from voxmlx.config import AUDIO_TOKEN_MS, DEFAULT_DELAY_MS, SAMPLES_PER_AUDIO_TOKEN

__all__ = ["lags_after_pauses", "main", "minute_of_silence"]

_LEVEL = 0.0005  # -66 dBFS


def minute_of_silence(
    checkpoint: Checkpoint, delay_ms: int, block: int, seconds: float
) -> dict[str, float]:
    """CPU seconds, encoder steps and decoder passes of faint noise."""
    rng = np.random.default_rng(0)
    session = Session(checkpoint, delay_ms=delay_ms, silence_block=block)
    n = round(seconds * 1000 / AUDIO_TOKEN_MS)
    sound = rng.normal(0, _LEVEL, (n + 40, SAMPLES_PER_AUDIO_TOKEN)).astype(np.float32)
    session.push(sound[:40].reshape(-1))  # until it is settled
    counts = {"encode_together": 0, "logits_together": 0}

    def counting(name: str) -> Any:
        method = getattr(checkpoint.model, name)

        def counted(*given: Any) -> Any:
            counts[name] += 1
            return method(*given)

        return patch.object(checkpoint.model, name, counted)

    with counting("encode_together"), counting("logits_together"):
        started = time.process_time()
        for piece in sound[40:]:
            session.push(piece)
        taken = time.process_time() - started
    return {
        "cpu_s": taken,
        "encoder_steps": counts["encode_together"],
        "decoder_passes": counts["logits_together"],
    }


def lags_after_pauses(
    checkpoint: Checkpoint, sound: np.ndarray, delay_ms: int, block: int
) -> list[float]:
    """Ms from the moment that sound is there to text that it brought, paced."""
    session = Session(checkpoint, delay_ms=delay_ms, silence_block=block)
    lags: list[float] = []
    started = time.perf_counter()
    for i in range(len(sound) // SAMPLES_PER_AUDIO_TOKEN):
        due = started + (i + 1) * AUDIO_TOKEN_MS / 1000
        time.sleep(max(0.0, due - time.perf_counter()))
        start = i * SAMPLES_PER_AUDIO_TOKEN
        events = session.push(sound[start : start + SAMPLES_PER_AUDIO_TOKEN])
        if any(isinstance(event, TextDelta) for event in events):
            lags.append(1000 * (time.perf_counter() - due))
    return lags


def main() -> int:
    return run_command(_run)


def _run() -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0, help="of silence")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=4)
    arguments = parser.parse_args()
    checkpoint = load_model(arguments)
    delay_ms = arguments.delay or DEFAULT_DELAY_MS
    sides: dict[int, list[dict[str, float]]] = {1: [], arguments.block: []}
    for _ in range(arguments.rounds):
        for block, runs in sides.items():
            runs.append(
                minute_of_silence(checkpoint, delay_ms, block, arguments.seconds)
            )
    single, blocks = sides[1], sides[arguments.block]
    ratio = Ratio.of([b["cpu_s"] for b in blocks], [s["cpu_s"] for s in single])
    print(f"CPU seconds, blocks of {arguments.block} / single steps: {ratio}")
    for name in ("encoder_steps", "decoder_passes"):
        print(f"{name}: {blocks[0][name]} / {single[0][name]}")
    sound = one_stream(held_out("flite")[: arguments.sentences], (4.0, 3.0))
    lags = {
        block: Spread.of(lags_after_pauses(checkpoint, sound, delay_ms, block))
        for block in (1, arguments.block)
    }
    for block, spread in lags.items():
        print(
            f"lag of text, block {block}: p50 {spread.p50:.1f} p95 {spread.p95:.1f} ms"
        )
    print(
        closing_line(
            "silence",
            block=arguments.block,
            seconds=arguments.seconds,
            cpu_ratio=asdict(ratio),
            single=single,
            blocks=blocks,
            lag_ms={block: asdict(spread) for block, spread in lags.items()},
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
