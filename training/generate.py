"""Make the datasets: python -m training.generate FOLDER espeak=2500 flite=1500 ..."""

import argparse
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from training import domain
from training.accents import Accented
from training.dataset import Utterance, write_dataset
from training.espeak import Espeak
from training.festival import Festival
from training.flite import Flite
from training.kokoro import Kokoro
from training.prompts import Prompts
from training.rhvoice import RHVoice
from training.synthesis import Synthesiser, finish

_ENGINES: dict[str, Callable[[], Synthesiser]] = {
    Accented.name: Accented,
    Espeak.name: Espeak,
    Festival.name: Festival,
    Flite.name: Flite,
    Kokoro.name: Kokoro,
    RHVoice.name: partial(RHVoice, moves_formants=True),
}
_HELD_OUT_PERCENT = 5

__all__ = ["is_held_out_sentence", "main", "spoken"]


def is_held_out_sentence(words: list[str]) -> bool:
    """Whether a sentence is kept for the test: four words or more, and not fixed."""
    text = " ".join(words)
    if len(words) < 4 or text in domain.FIXED_SENTENCES:
        return False
    code = zlib.crc32(text.encode())
    return code % 100 < _HELD_OUT_PERCENT


def spoken(
    engine: Synthesiser,
    voices: Sequence[str],
    n_utterances: int,
    rng: np.random.Generator,
    *,
    held_out: bool,
    isolated_odds: float = 0.0,
) -> Iterator[Utterance]:
    """Sentences of one side of the hold-out; what an engine stumbles over is left.

    With `isolated_odds` a single word takes a sentence's place, every other one a digit.
    """
    n_made = 0
    while n_made < n_utterances:
        words = (
            domain.isolated_word(rng)
            if rng.random() < isolated_odds
            else domain.sentence(rng)
        )
        if is_held_out_sentence(words) != held_out:
            continue
        voice = voices[rng.integers(len(voices))]
        speech = engine.speak(words, voice, rng)
        item = speech and finish(speech, words, f"{engine.name}-{voice}")
        if item:
            n_made += 1
            yield item


def _recorded(n_utterances: int, rng: np.random.Generator) -> Iterator[Utterance]:
    prompts = Prompts(held_out=False)
    for _ in range(n_utterances):
        yield prompts.splice(prompts.sentence(rng), rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sources", nargs="+", help="NAME=UTTERANCES")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--isolated", type=float, default=0.0, help="share of one word")
    args = parser.parse_args()
    for source in args.sources:
        name, count = source.split("=")
        rng = np.random.default_rng([args.seed, zlib.crc32(name.encode())])
        if name == Prompts.name:
            items = _recorded(int(count), rng)
        else:
            engine = _ENGINES[name]()
            items = spoken(
                engine,
                engine.voices,
                int(count),
                rng,
                held_out=False,
                isolated_odds=args.isolated,
            )
        n_written = write_dataset(args.folder / name, items)
        print(f"{name}: {n_written} utterances", flush=True)


if __name__ == "__main__":
    main()
