"""What MLX is asked to compute, counted from the graphs it is given."""

import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from voxmlx.decoding.network_requests import DecodeRequest

__all__ = ["Evaluations", "n_lazy_operations"]

_OPERATION = re.compile("shape=rectangle")


class Evaluations:
    """Counts, from its making on, what is evaluated and how ids are chosen.

    `n_operations` has the operations of each graph that was handed over, in order;
    `n_read` counts times that ids were read back, `n_chosen` ids chosen by anything
    but `greedy` for all streams at once.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.n_operations: list[int] = []
        self.n_read = 0
        self.n_chosen = 0
        self._folder = folder
        for name in ("eval", "async_eval"):
            monkeypatch.setattr(mx, name, self._counting(getattr(mx, name)))
        read, accept = DecodeRequest.ids, DecodeRequest.receive_logits

        def counted_ids(decoding: DecodeRequest) -> Any:
            self.n_read += 1
            return read(decoding)

        def counted_accept(decoding: DecodeRequest, *logits: Any) -> mx.array:
            self.n_chosen += decoding.choose is not None
            return accept(decoding, *logits)

        monkeypatch.setattr(DecodeRequest, "ids", counted_ids)
        monkeypatch.setattr(DecodeRequest, "receive_logits", counted_accept)

    def counts(self) -> tuple[list[int], int, int]:
        return self.n_operations, self.n_read, self.n_chosen

    def _counting(self, evaluate: Any) -> Any:
        def counted(*trees: Any) -> None:
            self.n_operations.append(n_lazy_operations(trees, self._folder))
            evaluate(*trees)

        return counted


def n_lazy_operations(tree: Any, folder: Path) -> int:
    """Return how many operations are still to be done for the arrays of a tree."""
    path = folder / "graph.dot"
    mx.export_to_dot(str(path), *_arrays(tree))
    return len(_OPERATION.findall(path.read_text()))


def _arrays(tree: Any) -> list[mx.array]:
    if isinstance(tree, mx.array):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    return [array for part in tree for array in _arrays(part)]
