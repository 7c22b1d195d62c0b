"""Make the test sets: python -m training.heldout FOLDER [--sentences 300]."""

import argparse
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from training.dataset import Utterance, write_dataset
from training.espeak import Espeak
from training.flite import Flite
from training.generate import spoken
from training.prompts import Prompts
from training.rhvoice import RHVoice
from training.synthesis import Speech, resample

__all__ = ["Pico", "main"]


class Pico:
    """SVOX Pico, an engine that no training sound comes from."""

    name = "pico"
    voices = ("en-US", "en-GB")

    def speak(
        self, words: Sequence[str], voice: str, _rng: np.random.Generator
    ) -> Speech | None:
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            command = ["pico2wave", "-l", voice, "-w", file.name, " ".join(words)]
            subprocess.run(command, check=True)
            samples, rate = soundfile.read(file.name, dtype="float32")
        samples = resample(samples, rate)
        # Pico does not say where words end; only the last end is known.
        return Speech(samples, [len(samples)] * len(words))


def _recorded(n_utterances: int, rng: np.random.Generator) -> Iterator[Utterance]:
    prompts = Prompts(held_out=True)
    for _ in range(n_utterances):
        yield prompts.splice(prompts.sentence(rng), rng)


def _sets(n: int, seed: int) -> Iterator[tuple[str, Iterator[Utterance]]]:
    """Name and content of each set: seen voices, unseen voice, engine, recordings."""
    third, half = n // 3, n // 2
    espeak, flite, rhvoice = Espeak(), Flite(), RHVoice()
    for name, engine, voices, count in (
        ("seen-espeak", espeak, espeak.voices, n - 2 * third),
        ("seen-flite", flite, flite.voices, third),
        ("seen-rhvoice", rhvoice, rhvoice.voices, third),
        ("unseen-flite-slt", flite, flite.held_out_voices, n - half),
        ("unseen-rhvoice-slt", rhvoice, rhvoice.held_out_voices, half),
        ("unseen-pico", Pico(), Pico.voices, n),
    ):
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        yield name, spoken(engine, voices, count, rng, held_out=True)
    yield "recorded", _recorded(n, np.random.default_rng([seed, 0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sentences", type=int, default=300, help="of each kind")
    parser.add_argument("--seed", type=int, default=77)
    args = parser.parse_args()
    for name, items in _sets(args.sentences, args.seed):
        print(f"{name}: {write_dataset(args.folder / name, items)}", flush=True)


if __name__ == "__main__":
    main()
