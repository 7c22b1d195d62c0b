"""Are words right, and their times? Against speech whose word marks are known.

python -m benchmarks.accuracy MODEL FOLDER... [--delays 80 480 2400] [--utterances 20]

A folder holds utterances as `training.dataset` writes them, synthesised, with the
synthesiser's own word marks. They are heard in one stream with pauses between. Words
that were recognised are compared in time: an end with its mark, a start with the mark
of the word before (only inside an utterance: there, words touch). Prints a row per
delay and folder, then one JSON line. WER is of lower-case words without punctuation.
"""

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import jiwer
import numpy as np

from benchmarks.machine import closing_line
from training.dataset import Dataset
from voxmlx import Checkpoint, Session, Transcript, Word, load

PAUSE_S = 0.7
END_LIMIT_MS, START_LIMIT_MS = 80, 160


@dataclass(frozen=True, slots=True)
class Marked:
    """A word that was said; `start_ms` is None where no mark tells it."""

    text: str
    start_ms: float | None
    end_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """What one folder gave at one delay; errors in ms, late is positive."""

    folder: str
    delay_ms: int
    n_words: int
    wer: float
    end_mean: float
    end_median: float
    end_within: float  # share of ends within END_LIMIT_MS
    start_mean: float
    start_within: float  # share of starts within START_LIMIT_MS
    times_real_time: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--delays", nargs="+", type=int, default=[80, 480, 2400])
    parser.add_argument("--utterances", type=int, default=20)
    arguments = parser.parse_args()
    checkpoint = load(arguments.model)
    print(
        "folder               delay  words    WER   end ms: mean median  in 80"
        "   start ms: mean  in 160   speed"
    )
    rows: list[Row] = []
    for folder in arguments.folders:
        sound, marks = _joined(folder, arguments.utterances)
        for delay_ms in arguments.delays:
            row = _measure(checkpoint, folder.name, sound, marks, delay_ms)
            rows.append(row)
            print(
                f"{row.folder:20} {row.delay_ms:5}  {row.n_words:5} {row.wer:6.1%}"
                f"   {row.end_mean:12.1f} {row.end_median:6.1f} {row.end_within:6.1%}"
                f"   {row.start_mean:14.1f}  {row.start_within:6.1%}"
                f"  {row.times_real_time:5.1f} x",
                flush=True,
            )
    figures = [asdict(row) for row in rows]
    print(closing_line("accuracy", model=arguments.model, rows=figures))
    return 0


def _joined(folder: Path, n_utterances: int) -> tuple[np.ndarray, list[Marked]]:
    """The folder's first utterances, one after another, and all their words."""
    dataset = Dataset(folder)
    pause = np.zeros(int(16_000 * PAUSE_S), np.float32)
    parts: list[np.ndarray] = [pause]
    marks: list[Marked] = []
    n_samples = len(pause)
    for index in range(min(n_utterances, len(dataset))):
        item = dataset[index]
        ends_ms = [(n_samples + end) / 16 for end in item.word_ends]
        starts_ms = [None, *ends_ms[:-1]]
        marks += map(Marked, item.words, starts_ms, ends_ms)
        parts += [item.samples, pause]
        n_samples += len(item.samples) + len(pause)
    return np.concatenate(parts), marks


def _measure(
    checkpoint: Checkpoint,
    folder: str,
    sound: np.ndarray,
    marks: list[Marked],
    delay_ms: int,
) -> Row:
    started = time.perf_counter()
    session = Session(checkpoint, delay_ms=delay_ms)
    words = Transcript.from_events(session.push(sound) + session.finish()).words
    seconds = time.perf_counter() - started
    reference = [mark.text for mark in marks]
    heard = [word.text.lower().strip(".,?!") for word in words]
    pairs = _matched(reference, heard, marks, words)
    ends = np.array([word.end_ms - mark.end_ms for mark, word in pairs])
    starts = np.array(
        [
            word.start_ms - mark.start_ms
            for (before, _), (mark, word) in pairwise(pairs)
            if mark.start_ms is not None and before.end_ms == mark.start_ms
        ]
    )
    return Row(
        folder=folder,
        delay_ms=delay_ms,
        n_words=len(pairs),
        wer=float(jiwer.wer(" ".join(reference), " ".join(heard))),
        end_mean=float(ends.mean()),
        end_median=float(np.median(ends)),
        end_within=float((np.abs(ends) <= END_LIMIT_MS).mean()),
        start_mean=float(starts.mean()),
        start_within=float((np.abs(starts) <= START_LIMIT_MS).mean()),
        times_real_time=len(sound) / 16_000 / seconds,
    )


def _matched(
    reference: list[str],
    heard: list[str],
    marks: list[Marked],
    words: tuple[Word, ...],
) -> list[tuple[Marked, Word]]:
    """The words that were recognised, with what was said."""
    matcher = SequenceMatcher(a=reference, b=heard, autojunk=False)
    return [
        (marks[block.a + i], words[block.b + i])
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    ]


if __name__ == "__main__":
    sys.exit(main())
