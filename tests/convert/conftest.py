"""One tiny source for every test of the converter, and what becomes of it."""

from pathlib import Path

import pytest

from convert.__main__ import convert
from tests.convert.directories import MODEL
from tests.convert.interrupted import SHARD_BYTES, contents


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in Mistral's layout, bfloat16; copy it before changing anything."""
    return MODEL.write(tmp_path_factory.mktemp("source") / "tiny", "bfloat16")


@pytest.fixture(scope="session")
def undisturbed(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Every file of the source's q4, made in one go."""
    directory = tmp_path_factory.mktemp("undisturbed") / "ours"
    convert(str(source), directory, shard_bytes=SHARD_BYTES)
    return contents(directory)
