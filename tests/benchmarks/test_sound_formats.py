"""The table of sound formats: every kind is read right, from a file and a pipe."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.sound_formats import KINDS, Kind, measure, source

PAGE = Path(__file__).parents[2] / "docs" / "sound-formats.md"


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return source()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_of_file_is_heard_as_it_was_made(kind: Kind, sound: np.ndarray) -> None:
    row = measure(kind, sound)
    assert row.correlation >= 0.99
    assert row.is_pipe_alike
    # Where no container says it, an encoder's start-up is heard: 50 ms at the most.
    assert abs(row.offset_ms) < (50 if kind.has_delay else 5)


def test_the_page_has_every_kind() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [kind.name for kind in KINDS if f"| {kind.name} |" not in page] == []
    assert len([kind for kind in KINDS if not kind.has_delay]) >= 40
