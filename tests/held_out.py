"""Sentences that the demo model never heard, with their sound and word times."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

__all__ = ["KINDS", "SEEN", "Sentence", "held_out", "one_stream"]

FOLDER = Path(__file__).parent / "data" / "demo"

SEEN = ("espeak", "flite", "rhvoice")
KINDS = (*SEEN, "slt", "pico")


@dataclass(frozen=True, slots=True, eq=False)
class Sentence:
    """Lower case text without punctuation; samples are float32 at 16 kHz.

    `kind` is the synthesiser where its voice was in training, `slt` for the voice and
    `pico` for the synthesiser that were not. The ends of the words count from the
    first sample; there are none of `pico`, which does not tell them.
    """

    kind: str
    voice: str
    text: str
    samples: np.ndarray
    word_ends_ms: tuple[int, ...]


@cache
def held_out(kind: str | None = None) -> tuple[Sentence, ...]:
    """All sentences, or those of one kind, in a fixed order."""
    if kind is not None:
        assert kind in KINDS
        return tuple(sentence for sentence in held_out() if sentence.kind == kind)
    sound, rate = soundfile.read(FOLDER / "held_out.ogg", dtype="float32")
    assert rate == 16_000
    sound.setflags(write=False)
    lines = (FOLDER / "held_out.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return tuple(
        Sentence(
            row["kind"],
            row["voice"],
            row["text"],
            sound[row["start_sample"] : row["start_sample"] + row["n_samples"]],
            tuple(row["word_ends_ms"]),
        )
        for row in rows
    )


def one_stream(
    sentences: tuple[Sentence, ...], pauses_s: tuple[float, ...] = (0.9, 0.5, 1.4, 0.7)
) -> np.ndarray:
    """Sentences in a row, a pause after each, the pauses by turns."""
    parts: list[np.ndarray] = []
    for i, sentence in enumerate(sentences):
        pause = np.zeros(int(16_000 * pauses_s[i % len(pauses_s)]), np.float32)
        parts += [sentence.samples, pause]
    return np.concatenate(parts)
