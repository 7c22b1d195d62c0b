"""Files of a live stream are valid at every moment."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from voxmlx.errors import OutputError
from voxmlx.events import Event, Finished, TextDelta
from voxmlx.live import output_files as module
from voxmlx.live import recorded
from voxmlx.live.output_files import CaptionFile, Recording


class Upper:
    """A format that writes text in capitals."""

    def feed(self, event: Event, /) -> str:
        return event.text.upper() if isinstance(event, TextDelta) else ""

    def end(self) -> str:
        return "!"


def test_captions_are_in_the_file_as_soon_as_they_are_final(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    file = CaptionFile(path, Upper())
    file.on_events([TextDelta("hé", 80), TextDelta("llo", 160)])
    assert path.read_text("utf-8") == "HÉLLO"
    file.on_events([Finished(160, 2)])
    file.close()
    assert path.read_text("utf-8") == "HÉLLO!"


def test_a_resumed_file_that_is_closed_before_it_is_cut_stays_as_it_was(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("HELLO WORLD")
    file = CaptionFile(path, Upper(), is_resumed=True)
    file.on_events([TextDelta("hello", 80)])
    file.close()
    assert path.read_text() == "HELLO WORLD"
    file = CaptionFile(path, Upper(), is_resumed=True)
    file.on_events([TextDelta("hello", 80)])
    file.cut()
    file.close()
    assert path.read_text() == "HELLO!"


@pytest.mark.parametrize("make", [lambda p: CaptionFile(p, Upper()), Recording])
def test_a_file_that_is_there_is_left_alone(make: type, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists and would be overwritten"):
        make(path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("make", [lambda p: CaptionFile(p, Upper()), Recording])
def test_a_file_in_no_directory_is_an_error(make: type, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        make(tmp_path / "nowhere" / "a")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_an_error_then_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = Path("/dev/full")
    monkeypatch.setattr(module, "create_file", lambda path: full.open("wb"))
    file = CaptionFile(full, Upper())
    with pytest.raises(OutputError, match="/dev/full cannot be written: No space"):
        file.on_events([TextDelta("text", 80)])
    with pytest.raises(OutputError, match="/dev/full cannot be written: No space"):
        file.close()


def test_a_recording_is_a_wav_of_what_was_heard_and_valid_meanwhile(
    tmp_path: Path,
) -> None:
    now = 0.0
    path = tmp_path / "a.wav"
    recording = Recording(path, clock=lambda: now)
    sound = np.random.default_rng(1).uniform(-1, 1, 32_000).astype(np.float32)
    recording.on_audio(sound[:16_000])
    now = 1.5
    recording.on_audio(sound[16_000:20_000])
    seen, rate = soundfile.read(path, dtype="float32")
    assert (len(seen), rate) == (20_000, 16_000)
    recording.on_audio(sound[20_000:])
    recording.close()
    whole, _ = soundfile.read(path, dtype="float32")
    np.testing.assert_allclose(whole, sound, atol=2**-15)


def test_what_is_too_loud_is_clipped(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "a.wav")
    recording.on_audio(np.array([2.0, -2.0, 1.0, -1.0], np.float32))
    recording.close()
    pcm, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert pcm.tolist() == [32767, -32768, 32767, -32768]


def test_a_recording_of_more_than_37_hours_still_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "_MAX_BYTES", 1000)
    recording = Recording(tmp_path / "a.wav")
    recording.on_audio(np.zeros(2000, np.float32))
    recording.close()
    assert soundfile.info(tmp_path / "a.wav").frames == 500
    assert (tmp_path / "a.wav").stat().st_size == 44 + 4000
