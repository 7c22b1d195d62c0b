"""Fixtures every test may use: a tiny checkpoint, on disk and loaded."""

from pathlib import Path

import pytest

from tests.tiny import TinyModel
from voxmlx.checkpoint import Checkpoint, load


@pytest.fixture(scope="session")
def tiny_checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in Mistral's layout; copy it before changing anything."""
    return TinyModel().write(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_checkpoint_dir: Path) -> Checkpoint:
    """The same checkpoint, loaded in float32."""
    return load(tiny_checkpoint_dir, "float32")
