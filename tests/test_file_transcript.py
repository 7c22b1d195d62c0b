"""A file in, a Transcript out: by the API, with the tiny model."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import voxmlx
from tests.sounds import speech_like
from voxmlx import AudioError, Checkpoint, Session, Transcript
from voxmlx.events import Event, Finished, TokenDecoded
from voxmlx.file_transcript import file_events, transcribe_file

SOUND = speech_like(16_000 * 3)


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.flac"
    soundfile.write(path, SOUND, 16_000)
    return path


@pytest.fixture(scope="module")
def expected(tiny_checkpoint: Checkpoint) -> Transcript:
    session = Session(tiny_checkpoint)
    quantized = np.round(SOUND * 32768).clip(-32768, 32767).astype(np.int16)
    return Transcript.from_events(session.push(quantized) + session.finish())


def test_a_path_and_a_file_object_give_a_sessions_transcript(
    talk: Path, tiny_checkpoint: Checkpoint, expected: Transcript
) -> None:
    assert transcribe_file(talk, model=tiny_checkpoint).text == expected.text
    assert voxmlx.transcribe_file(str(talk), model=tiny_checkpoint) == expected
    assert tiny_checkpoint.transcribe(io.BytesIO(talk.read_bytes())) == expected


def test_options_are_those_of_a_session(
    talk: Path, tiny_checkpoint: Checkpoint
) -> None:
    told = tiny_checkpoint.transcribe(talk, confidence=True, delay_ms=960)
    assert all(word.confidence is not None for word in told.words)


def test_a_cut_file_gives_a_transcript_with_a_warning(
    tmp_path: Path, tiny_checkpoint: Checkpoint
) -> None:
    path = tmp_path / "cut.wav"
    soundfile.write(path, SOUND, 16_000)
    path.write_bytes(path.read_bytes()[:-3200])
    (warning,) = tiny_checkpoint.transcribe(path).warnings
    assert warning.code == "cut_short"


def test_a_transcript_writes_itself_in_the_formats(
    talk: Path, tiny_checkpoint: Checkpoint
) -> None:
    told = tiny_checkpoint.transcribe(talk)
    assert told.to_srt().startswith("1\n00:00:0")
    assert told.to_vtt().startswith("WEBVTT\n\n00:00:0")
    content = json.loads(told.to_json())
    assert content["text"] == told.text.strip()
    words = [word for segment in content["segments"] for word in segment["words"]]
    assert [word["text"] for word in words] == [word.text for word in told.words]
    assert content["duration_ms"] == 3000


def test_events_come_while_the_sound_is_still_being_read(tmp_path: Path) -> None:
    class Counting:
        n_pushed = 0

        def push(self, samples: np.ndarray, /) -> list[Event]:
            self.n_pushed += len(samples)
            return [TokenDecoded(1, 0, 80)]

        def finish(self) -> list[Event]:
            return [Finished(0, 0)]

    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(SOUND, 20), 16_000)
    stream = Counting()
    with voxmlx.open_audio(path) as audio:
        events = file_events(audio, stream)
        assert isinstance(next(events), TokenDecoded)
        assert stream.n_pushed < 20 * len(SOUND) / 2
        assert isinstance([*events][-1], Finished)
    assert stream.n_pushed == 20 * len(SOUND)


@pytest.mark.parametrize("scale", [32_768.0, 2.0**31, 255.0])
def test_whole_numbers_cast_to_float_are_refused(
    tiny_checkpoint: Checkpoint, scale: float, tmp_path: Path
) -> None:
    samples = (SOUND * scale).astype(np.float32)
    session = Session(tiny_checkpoint)
    with pytest.raises(AudioError, match="divide whole numbers by their full scale"):
        session.push(samples)
    soundfile.write(tmp_path / "large.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="were whole numbers written as floats"):
        tiny_checkpoint.transcribe(tmp_path / "large.wav")


def test_a_clipped_or_over_driven_signal_is_no_mistake(
    tiny_checkpoint: Checkpoint,
) -> None:
    loud = SOUND * (4.0 / np.abs(SOUND).max())
    Session(tiny_checkpoint).push(loud.astype(np.float32))
