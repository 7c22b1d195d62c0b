"""Damaged files of ten formats: read or refused, never a crash, a hang or a secret."""

import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.audio.made_files import KINDS, make_file
from tests.audio.mutate import mutated
from voxmlx import demo, load
from voxmlx.audio.files import open_audio
from voxmlx.errors import AudioError
from voxmlx.events import SoundWarning, TextDelta
from voxmlx.file_transcript import file_events
from voxmlx.session import Session

PLAIN = ("wav", "flac", "ogg", "mp3", "aiff")
FORMATS = (*PLAIN, "m4a", "mkv", "webm", "wma", "mov")
N_FILES = 500


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    samples, _ = soundfile.read(demo.SAMPLE, dtype="float32")
    sound = samples[round(2.9 * 16_000) :][: round(1.4 * 16_000)]
    for suffix in PLAIN:
        soundfile.write(folder / f"a.{suffix}", sound, 16_000)
    for kind in set(FORMATS) - set(PLAIN):
        assert kind in KINDS
        make_file(folder / f"a.{kind}", sound, kind)
    return {kind: (folder / f"a.{kind}").read_bytes() for kind in FORMATS}


class Forward:
    """A file object that cannot seek, as a pipe."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, n_bytes: int, /) -> bytes:
        return self._file.read(n_bytes)


def outcome(file: io.BytesIO | Forward) -> tuple[str, object]:
    """What comes of a file: samples and warnings, or the error."""
    try:
        with open_audio(file, name="talk") as audio:
            heard = np.concatenate(list(audio.pieces()))
            return heard.tobytes().hex()[:4000], (len(heard), audio.take_warnings())
    except AudioError as error:
        # What to paste is another command for a pipe.
        return "refused", re.sub(r"ffmpeg -i \S+|ffprobe \S+|\S+$", "", str(error))


@pytest.mark.parametrize("seed", range(N_FILES))
def test_a_mutated_file_is_read_or_refused_alike_from_a_file_and_a_pipe(
    contents: dict[str, bytes], seed: int
) -> None:
    broken = mutated(contents[FORMATS[seed % len(FORMATS)]], seed)
    started = time.process_time()  # a busy machine takes none of it
    first, second = outcome(io.BytesIO(broken)), outcome(Forward(broken))
    assert time.process_time() - started < 10
    assert first[0] == second[0]
    if first[0] != "refused":
        assert first == second
    else:
        assert "\n" not in str(first[1])


@pytest.mark.slow
def test_no_mutated_file_succeeds_without_text_in_silence(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    checkpoint = load("demo")
    for seed in range(N_FILES):
        broken = mutated(contents[FORMATS[seed % len(FORMATS)]], seed)
        started = time.process_time()
        try:
            with open_audio(io.BytesIO(broken), name="talk") as audio:
                events = [*file_events(audio, Session(checkpoint))]
        except AudioError:
            continue
        assert any(isinstance(event, TextDelta | SoundWarning) for event in events)
        assert time.process_time() - started < 10, seed
