"""One tiny source for every test of the converter."""

from pathlib import Path

import pytest

from tests.convert.directories import MODEL


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in Mistral's layout, bfloat16; copy it before changing anything."""
    return MODEL.write(tmp_path_factory.mktemp("source") / "tiny", "bfloat16")
