"""A file is played whole, at the pace that was asked for, and can be stopped."""

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voxmlx.audio.file_source import FileSource
from voxmlx.audio.files import open_audio
from voxmlx.errors import AudioError


@pytest.fixture
def sound() -> np.ndarray:
    return np.random.default_rng(3).integers(-9999, 9999, 16_000 * 3 + 7, np.int16)


@pytest.fixture
def path(sound: np.ndarray, tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "talk.wav", sound, 16_000)
    return tmp_path / "talk.wav"


def heard(source: FileSource) -> np.ndarray:
    parts = [np.zeros(0, np.float32)]
    while not source.is_ended:
        parts += [block.samples for block in source.read(0.1)]
    source.close()
    return np.concatenate(parts)


@pytest.mark.parametrize("speed", [None, 30.0])
def test_every_sample_is_heard(
    path: Path, sound: np.ndarray, speed: float | None
) -> None:
    played = heard(FileSource(open_audio(path), speed=speed))
    np.testing.assert_array_equal(played * 32768, sound)


def test_paced_sound_comes_when_it_would_be_spoken(path: Path) -> None:
    started = time.monotonic()
    source = FileSource(open_audio(path), speed=3.0)
    n_heard = 0
    while not source.is_ended:
        for block in source.read(0.1):
            n_heard += len(block.samples)
            # Never early: a machine's stalls can make it late.
            assert block.time - started >= n_heard / 16_000 / 3 - 0.05
    assert time.monotonic() - started >= 0.95
    source.close()


def test_stopping_ends_a_paced_file_and_keeps_what_was_heard(path: Path) -> None:
    source = FileSource(open_audio(path), speed=0.1)  # half a minute of it
    blocks = source.read(60)
    source.stop()
    while not source.is_ended:
        blocks += source.read(0)
    source.close()
    assert 0 < sum(len(b.samples) for b in blocks) < 16_000 * 3


def test_a_fault_in_the_middle_is_raised_once_what_came_before_was_read(
    tmp_path: Path,
) -> None:
    samples = np.zeros(16_000 * 20, np.float32)
    samples[16_000 * 15] = np.nan
    soundfile.write(tmp_path / "bad.wav", samples, 16_000, subtype="FLOAT")
    source = FileSource(open_audio(tmp_path / "bad.wav"))
    n_heard = 0

    def read_on() -> None:
        nonlocal n_heard
        while not source.is_ended:
            n_heard += sum(len(block.samples) for block in source.read(1))

    with pytest.raises(AudioError, match="NaN or infinite sample at 15"):
        read_on()
    assert 14 * 16_000 <= n_heard <= 15 * 16_000
    source.close()


def test_a_pause_holds_a_file_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    samples = np.arange(16_000, dtype=np.int16)
    soundfile.write(path, samples, 16_000)
    source = FileSource(open_audio(path), speed=4.0)
    before = list(source.read(60))
    source.pause()
    time.sleep(0.1)
    before += source.read(0)  # what was read already
    assert source.read(0.1) == []
    assert not source.is_ended
    source.resume()
    parts = [block.samples for block in before]
    while not source.is_ended:
        parts += [block.samples for block in source.read(0.1)]
    source.close()
    np.testing.assert_array_equal(np.concatenate(parts) * 32768, samples)
    # It may be stopped meanwhile.
    source = FileSource(open_audio(path), speed=1.0)
    source.pause()
    source.stop()
    while not source.is_ended:
        source.read(0.1)
    source.close()


@pytest.mark.parametrize("speed", [None, 1.0])
def test_a_pause_after_a_stop_does_not_keep_a_file_from_its_end(
    path: Path, speed: float | None
) -> None:
    source = FileSource(open_audio(path), speed=speed)
    source.stop()
    source.pause()
    end = time.monotonic() + 60
    while not source.is_ended and time.monotonic() < end:
        source.read(0.01)
    assert source.is_ended
    source.close()
