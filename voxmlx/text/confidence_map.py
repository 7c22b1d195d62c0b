"""Raw confidence of a word -> how often such words are right, as was measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from voxmlx.errors import CheckpointError

__all__ = ["IDENTITY", "MAP_NAME", "ConfidenceMap", "read_confidence_map"]

MAP_NAME = "confidence.json"
"""The file of a model's directory that holds its map."""


@dataclass(frozen=True, slots=True)
class ConfidenceMap:
    """A line through points, which never falls; a call maps one number.

    `raw` rises strictly from 0 to 1, `calibrated` lies in [0, 1]. Raises ValueError for
    anything else. `n_words` is how many words it was fitted to, 0 for the identity.
    """

    raw: tuple[float, ...]
    calibrated: tuple[float, ...]
    n_words: int = 0

    def __post_init__(self) -> None:
        if len(self.raw) != len(self.calibrated) or len(self.raw) < 2:
            raise ValueError(
                f"{len(self.raw)} raw and {len(self.calibrated)} calibrated points, "
                "expected as many, and two at least"
            )
        if self.raw[0] != 0 or self.raw[-1] != 1:
            raise ValueError("raw points expected from 0 to 1")
        if not all(a < b for a, b in pairwise(self.raw)):
            raise ValueError("raw points expected to rise")
        if not all(a <= b for a, b in pairwise((0.0, *self.calibrated, 1.0))):
            raise ValueError("calibrated points expected never to fall, from 0 to 1")

    def __call__(self, raw: float) -> float:
        return float(np.interp(raw, self.raw, self.calibrated))

    def to_json(self) -> str:
        """Return the content of a model's confidence.json."""
        content = {
            "raw": [round(x, 5) for x in self.raw],
            "calibrated": [round(x, 5) for x in self.calibrated],
            "n_words": self.n_words,
        }
        return json.dumps(content, indent=1) + "\n"


IDENTITY = ConfidenceMap((0.0, 1.0), (0.0, 1.0))


def read_confidence_map(directory: Path) -> ConfidenceMap:
    """Return the map of a model's directory; the identity where there is none.

    Raises CheckpointError for a file that holds none.
    """
    path = directory / MAP_NAME
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return ConfidenceMap(
            _numbers(content["raw"]),
            _numbers(content["calibrated"]),
            int(content["n_words"]),
        )
    except FileNotFoundError:
        return IDENTITY
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} holds no map of confidence ({error!r}); remove it, or run "
            "`voxmlx convert --verify` again"
        ) from None


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
