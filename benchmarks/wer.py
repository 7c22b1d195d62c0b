"""Word error rates that can be compared: corpora as they are published, named normalizers.

python -m benchmarks.wer SET... [--models MODEL...] [--delays 480 960] [--kv-bits 16 8]

A SET is a folder as a corpus is published: LibriSpeech, FLEURS (a language, or all of the
model's thirteen), Common Voice, TED-LIUM, Earnings-21 and -22, Meanwhile, AMI (headsets),
CHiME-4, GigaSpeech, Switchboard, a Kaldi data directory, or sounds with a .txt beside
each. A file is a JSONL manifest with NeMo's keys. Several models are several recipes of
one: compare each with the source in bf16, measured in the same way.

What is heard goes to OUTPUT/*.jsonl at once. An interrupted command goes on there, and
other normalizers are tried on it without hearing anything again. The table goes to
OUTPUT/wer.md and wer.json, beside the model card's figures and transcribe.cpp's where the
set is the same.

Normalizers: english and basic are Whisper's, characters counts those after basic, none
changes nothing. By default English is measured with english, Chinese, Japanese and Korean
with characters and with basic, others with basic. (basic splits words of Hindi and other
languages at their vowel signs; so does everybody's figure that uses it.)
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from benchmarks.corpora.layouts import LAYOUTS, sets_in
from benchmarks.corpora.passages import n_passages, passages
from benchmarks.corpora.recording import SpeechSet
from benchmarks.hypotheses import Hypotheses, Hypothesis, WerRun
from benchmarks.normalizers import NORMALIZERS, normalizers_for
from benchmarks.passage_decoder import decode_passages
from benchmarks.provenance import closing_line, recipe_of
from benchmarks.published import PublishedRow, published
from benchmarks.ratios import Spread
from benchmarks.realtime import stream
from benchmarks.wer_table import Lag, WerRow, markdown, rows_of
from voxmlx import Checkpoint, demo, load
from voxmlx.cli.arguments import run_command
from voxmlx.config import LEGAL_DELAYS_MS, SAMPLE_RATE, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.errors import AudioError, OutputError
from voxmlx.model.cache import KV_BITS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what `argv` names; print the table, then one line of JSON."""
    arguments = _parse_arguments(argv)
    return run_command(lambda: _run(arguments))


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.wer",
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sets", metavar="SET", nargs="+", type=Path)
    add("--models", nargs="+", default=[demo.NAME], help="directories or Hub ids")
    add("--dtype", choices=("auto", "float16", "bfloat16", "float32"), default="auto")
    add("--delays", nargs="+", type=int, choices=LEGAL_DELAYS_MS, default=[480])
    add("--kv-bits", nargs="+", type=int, choices=KV_BITS, default=[16])
    add("--normalizers", nargs="+", choices=[*NORMALIZERS], help="instead of the set's")
    add("--layout", choices=[*LAYOUTS], help="of the folders, where it is not found")
    add("--split", default="test", help="part of a corpus (default: %(default)s)")
    add("--language", metavar="CODE", help="of sets that do not tell theirs")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--long-form",
        action="store_true",
        default=None,
        help="decode a recording as one stream (default: TED-LIUM, Earnings, Meanwhile)",
    )
    form.add_argument(
        "--segments",
        dest="long_form",
        action="store_false",
        help="decode every segment in a stream of its own",
    )
    add("--utterances", metavar="N", type=_positive, help="the first N of each set")
    add("--streams", metavar="N", type=_positive, default=8, help="stepped together")
    add(
        "--paced",
        metavar="SECONDS",
        type=_positive,
        help="hear so much of each set at the pace of speech as well, for the lag",
    )
    add(
        "--output", metavar="DIR", type=Path, default=Path("wer"), help="(default: wer)"
    )
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    sets = [
        one
        for path in arguments.sets
        for one in sets_in(path, split=arguments.split, layout=arguments.layout)
    ]
    rows: list[WerRow] = []
    others: list[PublishedRow] = []
    for model in arguments.models:
        checkpoint = load(model, arguments.dtype)
        for one in sets:
            for kv_bits, delay in product(arguments.kv_bits, arguments.delays):
                rows += _measured(arguments, checkpoint, one, kv_bits, delay)
                if arguments.utterances is None:
                    found = published(one.name, delay, rows[-1].n_utterances)
                    others += [row for row in found if row not in others]
    table = markdown(rows, others)
    print(table)
    line = closing_line(
        "wer",
        rows=[row.content() for row in rows],
        published=[asdict(row) for row in others],
    )
    _write(arguments.output / "wer.md", table)
    _write(arguments.output / "wer.json", json.dumps(json.loads(line), indent=1) + "\n")
    print(line)
    return 0


def _measured(
    arguments: argparse.Namespace,
    checkpoint: Checkpoint,
    speech: SpeechSet,
    kv_bits: int,
    delay_ms: int,
) -> list[WerRow]:
    """Hear what of a set was not heard before, and score all of it."""
    long_form = arguments.long_form
    run = WerRun(
        speech.name,
        checkpoint.name,
        recipe_of(checkpoint),
        checkpoint.dtype,
        kv_bits,
        delay_ms,
        speech.is_long_form if long_form is None else long_form,
    )
    with Hypotheses(arguments.output / _file_name(run), run) as hypotheses:
        before = frozenset(hypotheses.ids)
        total = n_passages(speech, is_long_form=long_form)
        if arguments.utterances is not None:
            total = min(total, arguments.utterances)
        waiting = passages(
            speech, is_long_form=long_form, n_most=arguments.utterances, skipped=before
        )
        with _bar() as bar:
            task = bar.add_task(
                f"{speech.name} {delay_ms} ms", total=max(0, total - len(before))
            )
            for reading in decode_passages(
                checkpoint,
                waiting,
                delay_ms=delay_ms,
                kv_bits=kv_bits,
                n_streams=arguments.streams,
            ):
                hypotheses.add(Hypothesis.of(reading))
                bar.advance(task)
        lag = None
        if arguments.paced is not None:
            lag = _lag(checkpoint, speech, kv_bits, delay_ms, arguments.paced)
        normalizers = normalizers_for(speech.language or arguments.language)
        if arguments.normalizers:
            normalizers = [NORMALIZERS[name] for name in arguments.normalizers]
        return rows_of(run, hypotheses, normalizers, lag=lag)


def _file_name(run: WerRun) -> str:
    form = "-long" if run.is_long_form else ""
    name = f"{run.set}--{run.model.rstrip('/').rpartition('/')[2]}--{run.dtype}"
    name += f"--kv{run.kv_bits}--{run.delay_ms}ms{form}.jsonl"
    return re.sub(r"[^\w.+-]+", "_", name)


def _lag(
    checkpoint: Checkpoint,
    speech: SpeechSet,
    kv_bits: int,
    delay_ms: int,
    seconds: int,
) -> Lag:
    """Hear the beginning of a set at the pace of speech, in pieces of 80 ms."""
    n_wanted = seconds * SAMPLE_RATE
    parts: list[np.ndarray] = []
    for passage in passages(speech):
        for piece in passage.pieces():
            parts.append(piece[:n_wanted])
            n_wanted -= len(parts[-1])
            if n_wanted == 0:
                break
        if n_wanted == 0:
            break
    sound = np.concatenate(parts)
    n_steps = len(sound) // SAMPLES_PER_AUDIO_TOKEN
    if n_steps == 0:
        raise AudioError(f"{speech.name} has less than 80 ms of sound to pace")
    run = stream(
        checkpoint,
        sound[: n_steps * SAMPLES_PER_AUDIO_TOKEN],
        n_steps,
        delay_ms=delay_ms,
        kv_bits=kv_bits,
        is_paced=True,
    )
    spread = Spread.of(run.lags)
    return Lag(spread.p50, spread.p95)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
