"""Word error rates, and how much they say: intervals over sounds drawn anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxmlx.errors import OutputError

__all__ = ["NORMALIZER", "WordErrors", "check_installed", "word_errors"]

NORMALIZER = "whisper-normalizer BasicTextNormalizer"

_N_DRAWS = 2000


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Per sound: words that are wrong, missing or too many, and words said."""

    n_wrong: tuple[int, ...]
    n_said: tuple[int, ...]

    @property
    def rate(self) -> float | None:
        """The word error rate over all sounds; None where nothing was said."""
        total = sum(self.n_said)
        return sum(self.n_wrong) / total if total else None

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Return the bootstrap interval of the rate: sounds drawn with replacement."""
        if not sum(self.n_said):
            return None
        wrong, said = np.array(self.n_wrong), np.array(self.n_said)
        rng = np.random.default_rng(0)
        rates: list[float] = []
        for _ in range(_N_DRAWS):
            drawn = rng.integers(0, len(said), len(said))
            if total := said[drawn].sum():
                rates.append(wrong[drawn].sum() / total)
        tail = (1 - level) / 2
        low, high = np.quantile(rates, tail), np.quantile(rates, 1 - tail)
        return float(low), float(high)


def word_errors(pairs: Sequence[tuple[str, str]]) -> WordErrors:
    """Compare what was said with what was heard, sound by sound."""
    jiwer, normalize = check_installed()
    wrong: list[int] = []
    said: list[int] = []
    for reference, heard in pairs:
        words, found = normalize(reference), normalize(heard)
        if not words.split():
            wrong.append(len(found.split()))
            said.append(0)
            continue
        result = jiwer.process_words(words, found)
        wrong.append(result.substitutions + result.deletions + result.insertions)
        said.append(result.hits + result.substitutions + result.deletions)
    return WordErrors(tuple(wrong), tuple(said))


def check_installed() -> tuple[Any, Any]:
    """Return jiwer and the normalizer. Raises OutputError where one is missing."""
    # Local imports: heavy, and wanted only when there are transcripts.
    try:
        import jiwer
        from whisper_normalizer.basic import BasicTextNormalizer
    except ImportError as error:
        raise OutputError(
            f"{error.name} is not installed, and transcripts are there to compare with; "
            "pip install 'voxmlx-realtime[convert]'"
        ) from None
    return jiwer, BasicTextNormalizer()
