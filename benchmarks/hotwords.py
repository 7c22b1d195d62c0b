"""Do hot words bring back words that are missed, and leave all others alone?

python -m benchmarks.hotwords FOLDER... [--noise 0.02] [--listed 1 5] [--boosts 1 2 4]

A FOLDER is what benchmarks.wer takes; white noise of RMS --noise is added to it.
Every utterance is first heard without hot words. Where that misses a word (of --letters
or more: nobody lists `is` or `oh`), the word is listed, with others that are missed
elsewhere; where none is missed, only such others, none of which is said. Prints a row
per length of the lists and boost, then one JSON line.
"""

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jiwer
import numpy as np
from whisper_normalizer.basic import BasicTextNormalizer

from benchmarks.provenance import closing_line
from benchmarks.speech_sets import utterances
from voxmlx import Checkpoint, Event, Session, Transcript, demo, load
from voxmlx.batch import Batch
from voxmlx.cli.arguments import run_command
from voxmlx.decoding.hotwords import BOOST
from voxmlx.errors import AudioError

__all__ = ["HotwordCase", "HotwordRow", "cases", "heard", "in_noise", "main", "measure"]

_normalise = BasicTextNormalizer()
_AT_ONCE = 32
_MIN_LETTERS = 4
_SILENCE = np.zeros(4800, np.float32)


@dataclass(frozen=True, slots=True)
class HotwordCase:
    """A sound, its words, what was heard of them without hot words, and a list."""

    samples: np.ndarray
    said: tuple[str, ...]
    heard: tuple[str, ...]
    missed: str | None
    hotwords: tuple[str, ...]

    @property
    def is_listed(self) -> bool:
        """Return whether any listed word is said."""
        return not set(self.said).isdisjoint(self.hotwords)


@dataclass(frozen=True, slots=True)
class HotwordRow:
    """Changes by hot words over all cases, at one boost and one length of lists."""

    delay_ms: int
    n_listed: int
    boost: float
    n_missed: int  # words that were listed and missed, one of an utterance
    n_found: int  # of them, with the list
    n_right: int  # words heard rightly without a list
    n_lost: int  # of them, with the list
    n_unlisted: int  # utterances in which no listed word is said
    n_disturbed: int  # of them, those that read differently with the list

    def __str__(self) -> str:
        return (
            f"{self.delay_ms:5} ms  {self.n_listed:3} listed  boost {self.boost:4.1f}   "
            f"found {self.n_found:3} of {self.n_missed:3} missed words   "
            f"lost {self.n_lost:2} of {self.n_right:4} right ones   "
            f"disturbed {self.n_disturbed:2} of {self.n_unlisted:3} utterances without"
        )


def in_noise(samples: np.ndarray, level: float, seed: int) -> np.ndarray:
    """A sound with silence around it, and white noise of RMS `level` on it all."""
    padded = np.concatenate([_SILENCE, samples, _SILENCE])
    noise = np.random.default_rng(seed).standard_normal(len(padded), dtype=np.float32)
    return padded + np.float32(level) * noise


def heard(
    checkpoint: Checkpoint,
    sounds: Sequence[np.ndarray],
    hotwords: Sequence[Sequence[str]],
    *,
    delay_ms: int = 480,
    boost: float = BOOST,
) -> list[tuple[str, ...]]:
    """The words of every sound, each in a session of its own with its own list."""
    batch = Batch(checkpoint.model)
    events: list[list[Event]] = [[] for _ in sounds]
    places: dict[Session, int] = {}
    waiting = iter(zip(sounds, hotwords, strict=True))
    while True:
        for sound, listed in itertools.islice(waiting, _AT_ONCE - len(batch)):
            session = Session(
                checkpoint, delay_ms=delay_ms, hotwords=listed, hotword_boost=boost
            )
            places[session] = len(places)
            batch.add(session)
            session.timeline.push(sound)
            session.timeline.end()
        if not len(batch):
            break
        for session, said in batch.step():
            events[places[session]] += said
    texts = [Transcript.from_events(one).text for one in events]
    return [tuple(_normalise(text).split()) for text in texts]


def cases(
    spoken: Sequence[tuple[np.ndarray, str]],
    plain: Sequence[tuple[str, ...]],
    n_listed: int,
    min_letters: int = _MIN_LETTERS,
) -> list[HotwordCase]:
    """A list for every sound with its text, given what is heard without one.

    Raises AudioError if no word is missed.
    """
    said = [tuple(_normalise(text).split()) for _, text in spoken]
    missed = [
        sorted(word for word in Counter(a) - Counter(b) if len(word) >= min_letters)
        for a, b in zip(said, plain, strict=True)
    ]
    rng = np.random.default_rng(0)
    words = rng.permutation(sorted(set(itertools.chain(*missed)))).tolist()
    if not words:
        raise AudioError(
            f"no word of {min_letters} letters or more is missed, so none can be "
            "listed; add --noise"
        )
    lists = [tuple(words[i : i + n_listed]) for i in range(0, len(words), n_listed)]
    found: list[HotwordCase] = []
    for (samples, _), own, others, text in zip(
        spoken, missed, plain, said, strict=True
    ):
        if own:
            word = own[rng.integers(len(own))]
            listed = next(one for one in lists if word in one)
        else:
            word = None
            apart = [one for one in lists if set(text).isdisjoint(one)]
            listed = apart[rng.integers(len(apart))] if apart else ()
        found.append(HotwordCase(samples, text, others, word, listed))
    return found


def measure(
    checkpoint: Checkpoint,
    all_cases: Sequence[HotwordCase],
    delay_ms: int,
    boost: float,
) -> HotwordRow:
    """Hear all cases with their lists, and count what that changes."""
    now = heard(
        checkpoint,
        [case.samples for case in all_cases],
        [case.hotwords for case in all_cases],
        delay_ms=delay_ms,
        boost=boost,
    )
    n_found = n_right = n_lost = n_disturbed = 0
    for case, words in zip(all_cases, now, strict=True):
        if case.missed is not None:
            n_found += words.count(case.missed) > case.heard.count(case.missed)
        right = _right(case.said, case.heard)
        n_right += len(right)
        n_lost += len(right - _right(case.said, words)) if words != case.heard else 0
        n_disturbed += words != case.heard and not case.is_listed
    return HotwordRow(
        delay_ms=delay_ms,
        n_listed=max(len(case.hotwords) for case in all_cases),
        boost=boost,
        n_missed=sum(case.missed is not None for case in all_cases),
        n_found=n_found,
        n_right=n_right,
        n_lost=n_lost,
        n_unlisted=sum(not case.is_listed for case in all_cases),
        n_disturbed=n_disturbed,
    )


def _right(said: Iterable[str], words: Iterable[str]) -> set[int]:
    """Places of the words said that were heard."""
    result = jiwer.process_words(" ".join(said), " ".join(words))
    return {
        place
        for span in result.alignments[0]
        if span.type == "equal"
        for place in range(span.ref_start_idx, span.ref_end_idx)
    }


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
    add("--model", default=demo.NAME, help="directory or Hub id")
    add("--dtype", choices=("auto", "float16", "bfloat16", "float32"), default="auto")
    add("--delays", nargs="+", type=int, default=[480], help="in ms")
    add("--noise", type=float, default=0.0, help="RMS, full scale being 1")
    add("--listed", nargs="+", type=int, default=[1, 5], help="words of a list")
    add("--letters", type=int, default=_MIN_LETTERS, help="of a listed word, at least")
    add("--boosts", nargs="+", type=float, default=[BOOST])
    add("--skip", metavar="N", type=int, default=0, help="the first of each folder")
    add("--utterances", metavar="N", type=int, help="so many of each folder")
    return parser.parse_args(argv)


def _run(arguments: argparse.Namespace) -> int:
    checkpoint = load(arguments.model, arguments.dtype)
    end = (
        None if arguments.utterances is None else arguments.skip + arguments.utterances
    )
    spoken = [
        (in_noise(one.samples, arguments.noise, seed), one.text)
        for folder in arguments.folders
        for seed, one in enumerate(utterances(folder))
        if arguments.skip <= seed and (end is None or seed < end)
    ]
    rows: list[HotwordRow] = []
    for delay_ms in arguments.delays:
        sounds = [samples for samples, _ in spoken]
        plain = heard(checkpoint, sounds, [()] * len(sounds), delay_ms=delay_ms)
        for n_listed, boost in itertools.product(arguments.listed, arguments.boosts):
            listed = cases(spoken, plain, n_listed, arguments.letters)
            row = measure(checkpoint, listed, delay_ms, boost)
            rows.append(row)
            print(row, flush=True)
    print(
        closing_line(
            "hotwords",
            model=checkpoint.name,
            dtype=checkpoint.dtype,
            noise=arguments.noise,
            folders=[folder.name for folder in arguments.folders],
            skip=arguments.skip,
            min_letters=arguments.letters,
            rows=[asdict(row) for row in rows],
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
