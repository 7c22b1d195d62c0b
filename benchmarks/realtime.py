"""python -m benchmarks.realtime [--demo | --model ...]: does this machine keep up?

Streams the demo's sample, over and over, in pieces of 80 ms: as fast as the machine
allows, or with --paced at the pace of speech. Prints tokens per second against 12.5,
what a step takes (whole, and by part: mel, encoder, adapter, decoder, head), time to the
first text, lag, and memory; over the first minute and over all. --full-window has the
decoder's ring filled beforehand. With --draft-delay, how much sooner a draft shows the
words of the demo's held-out sentences, and how many change. Ends in one JSON line.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.demo_sound import sample
from benchmarks.drafts import marked_stream
from benchmarks.drafts import measure as measure_draft
from benchmarks.provenance import closing_line, recipe_of
from benchmarks.ratios import Spread
from voxmlx import Checkpoint, Session, TextDelta, TokenDecoded
from voxmlx.batch import Batch
from voxmlx.cli.arguments import add_model_arguments, load_model, run_command
from voxmlx.config import AUDIO_TOKEN_MS, DEFAULT_DELAY_MS, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.decoding.choosing import greedy
from voxmlx.live.stream_metrics import peak_memory_mb
from voxmlx.model.attention import begin_step
from voxmlx.model.layer import Residual, pass_layers

STEPS_PER_MINUTE = 60_000 // AUDIO_TOKEN_MS
_N_PART_STEPS = 60

__all__ = ["Run", "demo_sound", "main", "parts", "stream"]


@dataclass(slots=True)
class Run:
    """Time of each 80 ms step, this thread's CPU part of it, and lag of its ids, in ms."""

    n_sessions: int = 1
    steps: list[float] = field(default_factory=list[float])
    host: list[float] = field(default_factory=list[float])
    lags: list[float] = field(default_factory=list[float])
    n_tokens: int = 0
    first_text_ms: float | None = None

    def figures(self, n_steps: int | None = None) -> dict[str, Any]:
        """Return figures of the first `n` steps; `tokens_per_s` is per session."""
        steps, lags = self.steps[:n_steps], self.lags[:n_steps]
        return {
            "n_steps": len(steps),
            "tokens_per_s": 1000 * len(steps) / sum(steps),
            "step_ms": asdict(Spread.of(steps)),
            "host_ms": asdict(Spread.of(self.host[:n_steps])) if self.host else None,
            "lag_ms": asdict(Spread.of(lags)) if lags else None,
        }


def stream(
    checkpoint: Checkpoint,
    sound: np.ndarray,
    n_steps: int,
    *,
    n_sessions: int = 1,
    delay_ms: int = 480,
    kv_bits: int = 16,
    draft_delay_ms: int | None = None,
    is_paced: bool = False,
    n_before: int = 0,
    noted: Callable[[int, Run], None] | None = None,
) -> Run:
    """`n_steps` pieces of 80 ms through sessions that are stepped together.

    `n_before` pieces are heard first, in large steps, and not timed. `noted` is called
    after every step.
    """
    batch = Batch(checkpoint.model)
    sessions = [
        Session(
            checkpoint,
            delay_ms=delay_ms,
            kv_bits=kv_bits,
            draft_delay_ms=draft_delay_ms,
        )
        for _ in range(n_sessions)
    ]
    pieces = np.split(sound, len(sound) // SAMPLES_PER_AUDIO_TOKEN)
    for session in sessions:
        for i in range(0, n_before, 32):
            taken = [pieces[j % len(pieces)] for j in range(i, min(i + 32, n_before))]
            session.push(np.concatenate(taken))
        batch.add(session)
    run = Run(n_sessions)
    started = time.perf_counter()
    for i in range(n_steps):
        due = started + (i + 1) * AUDIO_TOKEN_MS / 1000
        if is_paced:
            time.sleep(max(0.0, due - time.perf_counter()))
        start, host_start = time.perf_counter(), time.thread_time()
        for session in sessions:
            session.timeline.push(pieces[(n_before + i) % len(pieces)])
        events = []
        while batch.n_due:
            events += [event for _, said in batch.step() for event in said]
        end = time.perf_counter()
        run.steps.append(1000 * (end - start))
        run.host.append(1000 * (time.thread_time() - host_start))
        if is_paced:
            run.lags.append(1000 * (end - due))
        run.n_tokens += sum(isinstance(event, TokenDecoded) for event in events)
        has_text = any(isinstance(event, TextDelta) for event in events)
        if has_text and run.first_text_ms is None:
            run.first_text_ms = 1000 * (end - started)
        if noted:
            noted(i, run)
    return run


def parts(
    checkpoint: Checkpoint, *, kv_bits: int = 16, is_full: bool = False
) -> dict[str, Spread]:
    """A step's parts one after another, each waited for. Their sum is more than a
    step, in which nothing waits for the part before.
    """
    model = checkpoint.model
    state = model.open_state(kv_bits=kv_bits)
    if is_full:
        state.encoder.cache.fill()
        state.decoder.cache.fill()
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.05, (1, SAMPLES_PER_AUDIO_TOKEN)).astype(np.float32)
    token = mx.full((1, 1), 32, mx.int32)
    decoder = model.decoder
    taken: dict[str, list[float]] = {}

    def timed(name: str, compute: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        made = compute()
        mx.eval(made)
        taken.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        return made

    def layers(embedding: mx.array) -> Residual:
        step = begin_step(
            [state.decoder.cache], decoder.rotary, [1], decoder.config.n_kv_heads
        )
        return pass_layers(decoder.layers, embedding, step, state.decoder.mlp_norms)

    for _ in range(_N_PART_STEPS):
        mel = timed("mel", lambda: model.mel.step(samples, state.mel))
        frames = timed("encoder", lambda m=mel: model.encoder.step(m, state.encoder))
        audio = timed("adapter", lambda f=frames: model.adapter(f))
        embedding = audio + decoder.embed(token)
        residual = timed("decoder", lambda e=embedding: layers(e))
        timed("head", lambda r=residual: greedy(decoder._logits(r)[:, 0]))
    return {name: Spread.of(times[10:]) for name, times in taken.items()}


def main() -> int:
    return run_command(_run)


def _run() -> int:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument("--seconds", type=float, default=120.0, help="of sound")
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--full-window", action="store_true")
    parser.add_argument("--paced", action="store_true")
    parser.add_argument("--draft-delay", type=int, metavar="MS")
    parser.add_argument(
        "--sentences", type=int, default=7, help="of each kind, for --draft-delay"
    )
    arguments = parser.parse_args()
    started = time.perf_counter()
    checkpoint = load_model(arguments)
    load_s = time.perf_counter() - started
    delay_ms = arguments.delay or DEFAULT_DELAY_MS
    opened_ms = _opening_ms(checkpoint, delay_ms)
    window = checkpoint.config.decoder.sliding_window
    run = stream(
        checkpoint,
        demo_sound(),
        round(arguments.seconds * 12.5),
        n_sessions=arguments.sessions,
        delay_ms=delay_ms,
        kv_bits=arguments.kv_bits,
        draft_delay_ms=arguments.draft_delay,
        is_paced=arguments.paced,
        n_before=window if arguments.full_window else 0,
    )
    memory = {
        "active_mb": mx.get_active_memory() / 1e6,
        "peak_mb": mx.get_peak_memory() / 1e6,
        "cache_mb": mx.get_cache_memory() / 1e6,
        "resident_peak_mb": peak_memory_mb(),
    }
    split = parts(checkpoint, kv_bits=arguments.kv_bits, is_full=arguments.full_window)
    figures = {
        "first_minute": run.figures(STEPS_PER_MINUTE),
        "sustained": run.figures(),
    }
    _print(run, figures, split, memory, opened_ms)
    drafts = None
    if arguments.draft_delay is not None:
        sound, marks = marked_stream(arguments.sentences)
        drafts = measure_draft(
            checkpoint,
            sound,
            marks,
            delay_ms=delay_ms,
            draft_delay_ms=arguments.draft_delay,
        )
        print(f"draft          {drafts}")
    print(
        closing_line(
            "realtime",
            model=arguments.model,
            recipe=recipe_of(checkpoint),
            dtype=checkpoint.dtype,
            kv_bits=arguments.kv_bits,
            delay_ms=delay_ms,
            sessions=arguments.sessions,
            is_paced=arguments.paced,
            is_full_window=arguments.full_window,
            load_s=load_s,
            open_ms=opened_ms,
            first_text_ms=run.first_text_ms,
            **figures,
            parts={name: asdict(spread) for name, spread in split.items()},
            memory=memory,
            draft_delay_ms=arguments.draft_delay,
            draft=drafts and asdict(drafts),
        )
    )
    return 0


def demo_sound() -> np.ndarray:
    """The demo's sample, whole audio tokens of it."""
    sound = sample()
    return sound[: len(sound) // SAMPLES_PER_AUDIO_TOKEN * SAMPLES_PER_AUDIO_TOKEN]


def _opening_ms(checkpoint: Checkpoint, delay_ms: int) -> float:
    """Of a session after the first, its rings computed."""
    Session(checkpoint, delay_ms=delay_ms)
    taken: list[float] = []
    for _ in range(9):
        start = time.perf_counter()
        Session(checkpoint, delay_ms=delay_ms)
        mx.eval(checkpoint.model.open_state(delay_ms).arrays())
        taken.append(1000 * (time.perf_counter() - start))
    return median(taken)


def _print(
    run: Run,
    figures: dict[str, Any],
    split: dict[str, Spread],
    memory: dict[str, float],
    opened_ms: float,
) -> None:
    for name, of_run in figures.items():
        step = Spread(**of_run["step_ms"])
        print(
            f"{name:14} {of_run['tokens_per_s']:8.1f} tokens/s of 12.5 a session, "
            f"{run.n_sessions} at once; ms a step {_row(step)}"
        )
        if of_run["host_ms"]:
            host = Spread(**of_run["host_ms"])
            print(f"{'':14} of it CPU time of this thread in ms {_row(host)}")
        if of_run["lag_ms"]:
            print(f"{'':14} lag in ms {_row(Spread(**of_run['lag_ms']))}")
    for name, spread in split.items():
        print(f"{name:14} {_row(spread)}")
    if run.first_text_ms is not None:
        print(f"{'first text':14} {run.first_text_ms:.0f} ms after the first sample")
    print(f"{'opening':14} {opened_ms:.2f} ms a session after the first")
    print("memory         " + "  ".join(f"{k} {v:.0f}" for k, v in memory.items()))


def _row(s: Spread) -> str:
    return f"p50 {s.p50:.2f}  p95 {s.p95:.2f}  p99 {s.p99:.2f}  max {s.max:.2f}"


if __name__ == "__main__":
    sys.exit(main())
