"""Sound to calibrate with, for who has none."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from convert import generated_sound
from convert.__main__ import convert
from convert.calibration import read_calibration
from convert.generated_sound import generated_sounds
from convert.rounding import RoundingName
from tests.sounds import speech_like
from voxmlx import load
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


def test_the_embedding_is_rounded_by_a_guess_where_no_word_is_heard(
    source: Path, tmp_path: Path
) -> None:
    def embedding(name: str, rounding: RoundingName, *sounds: str) -> mx.array:
        calibration = read_calibration([Path(sound) for sound in sounds])
        place = tmp_path / name
        convert(str(source), place, rounding=rounding, calibration=calibration)
        return load(place, "float32").model.decoder.embedding.weight

    guessed = embedding("search", "search")
    assert mx.array_equal(embedding("generated", "gptq", "generated"), guessed)
    words = tmp_path / "words.wav"
    soundfile.write(words, speech_like(2 * SAMPLE_RATE), SAMPLE_RATE)
    with_words = embedding("both", "gptq", "generated", str(words))
    assert not mx.array_equal(with_words, guessed)
