"""Word error rate, errors of word times, and speed.

python -m benchmarks.accuracy FOLDER... [--models MODEL...] [--delays 80 480 2400]

Several models are several recipes of one: compare each with the source in bf16, as
the error rate of a normaliser means nothing beside a figure of another. A FOLDER holds
sounds with their text: `talk.wav` beside `talk.txt`, a language of FLEURS as it is
published (test.tsv, audio/test.tar.gz), or what `training.dataset` writes. There the
ends of words are known, and errors of time are printed too.

Texts are normalised by whisper-normalizer's BasicTextNormalizer, and compared by jiwer:
words, or characters in languages written without spaces (--characters; so it is for
FLEURS' Chinese, Japanese, Thai, ...). Prints a row per model, bits of the decoder's
rings (--kv-bits 16 8), folder and delay, then one JSON line.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jiwer
from whisper_normalizer.basic import BasicTextNormalizer

from benchmarks.provenance import closing_line
from benchmarks.speech_sets import Utterance, utterances
from benchmarks.word_times import TimeErrors, in_one_stream
from voxmlx import Checkpoint, Session, Transcript, demo, load
from voxmlx.cli.arguments import run_command

PAUSE_S = 0.7
NORMALISER = "whisper-normalizer BasicTextNormalizer"
# FLEURS' names of languages whose words are not separated.
UNSPACED = ("cmn", "yue", "ja", "th", "lo", "my", "km")

__all__ = ["AccuracyRow", "error_rate", "main", "measure", "recipe_of"]


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """Figures of one model on one folder at one delay."""

    model: str
    recipe: str
    dtype: str
    kv_bits: int
    folder: str
    delay_ms: int
    n_utterances: int
    unit: str  # of `error_rate`: words or characters
    error_rate: float
    times_real_time: float
    times: TimeErrors | None

    def __str__(self) -> str:
        times = ""
        if self.times is not None:
            t = self.times
            times = (
                f"   ends {t.end_mean:+5.0f} ms, {t.end_within:6.1%} in 80"
                f"   starts {t.start_mean:+5.0f} ms, {t.start_within:6.1%} in 160"
            )
        return (
            f"{self.model[-20:]:20} {self.recipe:8} {self.kv_bits:2} {self.folder[-20:]:20} "
            f"{self.delay_ms:5} {self.n_utterances:6} {self.error_rate:7.2%} "
            f"{self.unit:10} {self.times_real_time:6.1f} x{times}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: _run(_parse_arguments(argv)))


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folders", metavar="FOLDER", nargs="+", type=Path)
    add("--models", nargs="+", default=[demo.NAME], help="directories or Hub ids")
    add("--dtype", choices=("auto", "float16", "bfloat16", "float32"), default="auto")
    add("--kv-bits", nargs="+", type=int, default=[16], help="of the decoder's rings")
    add("--delays", nargs="+", type=int, default=[80, 480, 2400], help="in ms")
    add("--utterances", metavar="N", type=int, help="the first N of each folder")
    add("--characters", action="store_true", help="count characters, not words")
    return parser.parse_args(argv)


def _run(arguments: argparse.Namespace) -> int:
    print(
        f"normaliser: {NORMALISER}\n"
        "model                recipe   kv folder               delay   said   error "
        "of            speed"
    )
    rows: list[AccuracyRow] = []
    for model, kv_bits in itertools.product(arguments.models, arguments.kv_bits):
        checkpoint = load(model, arguments.dtype)
        for folder in arguments.folders:
            said = list(itertools.islice(utterances(folder), arguments.utterances))
            by_character = arguments.characters or folder.name.startswith(UNSPACED)
            for delay_ms in arguments.delays:
                row = measure(
                    checkpoint,
                    folder.name,
                    said,
                    delay_ms,
                    kv_bits=kv_bits,
                    by_character=by_character,
                )
                rows.append(row)
                print(row, flush=True)
    print(
        closing_line(
            "accuracy", normaliser=NORMALISER, rows=[asdict(row) for row in rows]
        )
    )
    return 0


def measure(
    checkpoint: Checkpoint,
    folder: str,
    said: Sequence[Utterance],
    delay_ms: int,
    *,
    kv_bits: int = 16,
    by_character: bool = False,
) -> AccuracyRow:
    """Hear each utterance in a session of its own; with word marks, all in one."""
    seconds = 0.0
    heard: list[Transcript] = []
    sounds = [utterance.samples for utterance in said]
    texts = [utterance.text for utterance in said]
    marks = None
    if all(utterance.word_ends_ms is not None for utterance in said):
        sound, marks = in_one_stream(said, PAUSE_S)
        sounds, texts = [sound], [" ".join(texts)]
    for samples in sounds:
        started = time.perf_counter()
        session = Session(checkpoint, delay_ms=delay_ms, kv_bits=kv_bits)
        events = session.push(samples) + session.finish()
        seconds += time.perf_counter() - started
        heard.append(Transcript.from_events(events))
    n_samples = sum(len(samples) for samples in sounds)
    return AccuracyRow(
        model=checkpoint.name,
        recipe=recipe_of(checkpoint),
        dtype=checkpoint.dtype,
        kv_bits=kv_bits,
        folder=folder,
        delay_ms=delay_ms,
        n_utterances=len(said),
        unit="characters" if by_character else "words",
        error_rate=error_rate(
            texts, [one.text for one in heard], by_character=by_character
        ),
        times_real_time=n_samples / 16_000 / seconds,
        times=None if marks is None else TimeErrors.of(marks, heard[0].words),
    )


def error_rate(
    said: Sequence[str], heard: Sequence[str], *, by_character: bool = False
) -> float:
    """Wrong, missing and extra words (or characters) over those that were said."""
    # Characters are words of one letter each to the normaliser.
    normalise = BasicTextNormalizer(split_letters=by_character)
    return float(jiwer.wer([normalise(t) for t in said], [normalise(t) for t in heard]))


def recipe_of(checkpoint: Checkpoint) -> str:
    """The recipe a converted model names, or the dtype of one that is not."""
    config = Path(checkpoint.name) / "config.json"
    if config.is_file():
        named = json.loads(config.read_text(encoding="utf-8")).get("recipe")
        if named is not None:
            return str(named)
    return checkpoint.dtype


if __name__ == "__main__":
    sys.exit(main())
