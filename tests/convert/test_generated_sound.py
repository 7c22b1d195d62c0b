"""Sound to calibrate with, for who has none."""

from pathlib import Path

import numpy as np
import pytest

from convert import generated_sound
from convert.calibration import read_calibration
from convert.generated_sound import generated_sounds
from voxmlx.config import SAMPLE_RATE


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated_sound, "_N_SOUNDS", 4)


def test_it_is_the_same_every_time() -> None:
    first, again = generated_sounds(), generated_sounds()
    assert [s.digest for s in first] == [s.digest for s in again]
    assert len({s.digest for s in first}) == 4


def test_it_is_loud_and_soft_by_turns_and_never_clips() -> None:
    for sound in generated_sounds():
        assert np.abs(sound.samples).max() < 1
        levels = np.sqrt((sound.samples.reshape(-1, 800) ** 2).mean(1))
        assert np.quantile(levels, 0.05) < 0.01 < np.quantile(levels, 0.5)


def test_its_name_stands_for_it_beside_other_sound() -> None:
    found = read_calibration([Path("generated")])
    assert [len(s.samples) for s in found] == [4 * SAMPLE_RATE] * 4
    assert len(read_calibration([Path("demo"), Path("generated")])) == 87 + 4
