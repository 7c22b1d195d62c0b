"""Conversions that end early, and what they may leave."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from convert import output
from voxmlx import load
from voxmlx.errors import CheckpointError

__all__ = [
    "SHARD_BYTES",
    "Killed",
    "contents",
    "dies_at",
    "killed_at",
    "refuses_to_load",
]

SHARD_BYTES = 30_000


class Killed(BaseException):
    """Ends a conversion where it stands: nothing of ours catches it."""


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def dies_at(monkeypatch: pytest.MonkeyPatch, n: int, error: BaseException) -> None:
    """Let the n-th write to a shard write half and raise `error`."""
    real: Callable[..., None] = output.HashingFile.write
    count = 0

    def write(self: Any, content: Any) -> None:
        nonlocal count
        count += 1
        if count == n:
            real(self, memoryview(content)[: len(content) // 2])
            raise error
        real(self, content)

    monkeypatch.setattr(output.HashingFile, "write", write)


@contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, n: int) -> Iterator[None]:
    """Expect that what runs here is killed by its n-th write to a shard."""
    with monkeypatch.context() as patch:
        dies_at(patch, n, Killed())
        with pytest.raises(Killed):
            yield


def refuses_to_load(directory: Path) -> None:
    for path in (directory, directory / "model"):
        if path.exists():
            with pytest.raises(CheckpointError):
                load(path)
