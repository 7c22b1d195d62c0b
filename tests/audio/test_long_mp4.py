"""A long MP4 read as a row of short ones gives what FFmpeg makes of the whole."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

import voxmlx.audio.long_mp4
import voxmlx.audio.mp4_parts
from tests.audio.made_files import make_film, make_sound
from tests.audio.mutate import mutated
from tests.audio.test_mutated import Forward, outcome
from voxmlx import demo
from voxmlx.audio.files import open_audio
from voxmlx.events import SoundWarning

MP4 = {
    "m4a": ("ipod", "aac", 48_000, {}),
    "index first": ("ipod", "aac", 44_100, {"movflags": "faststart"}),
    "alac": ("ipod", "alac", 44_100, {}),
    "opus": ("mp4", "libopus", 48_000, {}),
    "flac": ("mp4", "flac", 48_000, {"strict": "-2"}),
    "mp3": ("mp4", "libmp3lame", 44_100, {}),
    "ac3": ("mp4", "ac3", 48_000, {}),
    "mov": ("mov", "aac", 44_100, {}),
    "mov, pcm": ("mov", "pcm_s16le", 48_000, {}),
    "mov, adpcm": ("mov", "adpcm_ima_qt", 44_100, {}),
    "3gp": ("3gp", "aac", 16_000, {}),
    "mov, pcm, index first": ("mov", "pcm_s24be", 8_000, {"movflags": "faststart"}),
}
IN_FRAGMENTS = {
    "positions": "frag_keyframe+empty_moov",
    "offsets": "frag_keyframe+empty_moov+default_base_moof",
    "edits": "frag_keyframe+delay_moov",
    "dash": "dash+global_sidx",
    "cmaf": "cmaf",
}


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return soundfile.read(demo.SAMPLE, dtype="float32")[0][: 2 * 16_000]


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(voxmlx.audio.long_mp4, "_MAX_ENTRIES", 0)
    monkeypatch.setattr(voxmlx.audio.long_mp4, "_PART_ENTRIES", 11)
    monkeypatch.setattr(voxmlx.audio.mp4_parts, "_MAX_FRAGMENTS", 2)
    return monkeypatch


def made(
    path: Path,
    sound: np.ndarray,
    container: str,
    codec: str,
    rate: int,
    options: dict[str, str],
) -> bytes:
    return make_sound(path, sound, container, codec, rate, options).read_bytes()


def read(file: io.BytesIO | Forward) -> tuple[np.ndarray, list[SoundWarning], float]:
    with open_audio(file, name="talk") as audio:
        heard = np.concatenate(list(audio.pieces()))
        return heard, audio.take_warnings(), audio.duration_s or 0.0


def assert_alike(content: bytes, short_parts: pytest.MonkeyPatch, n: int) -> None:
    parts, piped = read(io.BytesIO(content)), read(Forward(content))
    short_parts.undo()
    whole = read(io.BytesIO(content))
    for heard, warnings, duration_s in (parts, piped):
        np.testing.assert_array_equal(heard, whole[0])
        assert (warnings, duration_s) == whole[1:]
    assert len(whole[0]) == pytest.approx(n, abs=1600)


@pytest.mark.parametrize("kind", MP4)
def test_parts_give_the_sound_of_the_whole(
    tmp_path: Path, sound: np.ndarray, short_parts: pytest.MonkeyPatch, kind: str
) -> None:
    content = made(tmp_path / "talk", sound, *MP4[kind])
    assert_alike(content, short_parts, len(sound))


@pytest.mark.parametrize("kind", IN_FRAGMENTS)
def test_fragments_in_parts_give_the_sound_of_the_whole(
    tmp_path: Path, sound: np.ndarray, short_parts: pytest.MonkeyPatch, kind: str
) -> None:
    options = {"movflags": IN_FRAGMENTS[kind], "frag_duration": "300000"}
    content = made(tmp_path / "talk", sound, "mp4", "aac", 48_000, options)
    assert content.count(b"moof") > 4
    assert_alike(content, short_parts, len(sound))


def boxed(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def with_edits(content: bytes, *edits: tuple[int, int]) -> bytes:
    """An MP4 whose index stands last, with another edit list of (ms, media time)."""
    rows = b"".join(struct.pack(">iiI", *edit, 1 << 16) for edit in edits)
    at = content.index(b"elst") - 12
    size = int.from_bytes(content[at : at + 4], "big")
    edts = boxed(b"edts", boxed(b"elst", struct.pack(">II", 0, len(edits)) + rows))
    edited = bytearray(content[:at] + edts + content[at + size :])
    for kind in (b"moov", b"trak"):
        begin = edited.index(kind) - 4
        n = int.from_bytes(edited[begin : begin + 4], "big") + len(edts) - size
        edited[begin : begin + 4] = n.to_bytes(4, "big")
    return bytes(edited)


@pytest.mark.parametrize(
    ("edits", "n_ms"),
    [
        pytest.param([(700, 1024)], 700, id="the end is left out"),
        pytest.param([(900, 24_000)], 900, id="the begin is left out"),
        pytest.param([(600, 45_056)], 600, id="both"),
        pytest.param([(1_500, -1), (2_000, 1024)], 3_500, id="it starts late"),
        pytest.param([(200, -1), (300, -1), (500, 1024)], 1_000, id="two silences"),
        pytest.param([(500, 1024), (500, 48_000)], 1_000, id="two parts are played"),
    ],
)
def test_what_is_played_of_a_track_is_what_is_heard(
    tmp_path: Path,
    sound: np.ndarray,
    short_parts: pytest.MonkeyPatch,
    edits: list[tuple[int, int]],
    n_ms: int,
) -> None:
    content = with_edits(made(tmp_path / "talk", sound, *MP4["m4a"]), *edits)
    assert_alike(content, short_parts, n_ms * 16)


def test_a_film_of_many_pictures_is_read_for_its_sound(
    tmp_path: Path, sound: np.ndarray, short_parts: pytest.MonkeyPatch
) -> None:
    for suffix in ("mp4", "mov"):
        path = make_film(tmp_path / f"film.{suffix}", sound, 0.7, suffix)
        n = len(sound) + round(0.7 * 16_000)
        with short_parts.context() as parts:
            assert_alike(path.read_bytes(), parts, n)


@pytest.mark.parametrize("kind", ["index first", "mov, pcm, index first", "positions"])
def test_a_cut_file_is_told_of_like_a_short_one(
    tmp_path: Path, sound: np.ndarray, short_parts: pytest.MonkeyPatch, kind: str
) -> None:
    if kind in MP4:
        content = made(tmp_path / "talk", sound, *MP4[kind])
    else:
        options = {"movflags": IN_FRAGMENTS[kind], "frag_duration": "300000"}
        content = made(tmp_path / "talk", sound, "mp4", "aac", 48_000, options)
    cut = content[: -len(content) // 4]
    heard, warnings, _ = read(io.BytesIO(cut))
    piped, told, _ = read(Forward(cut))
    short_parts.undo()
    whole, expected, _ = read(io.BytesIO(cut))
    np.testing.assert_array_equal(heard, whole)
    np.testing.assert_array_equal(piped, whole)
    assert [warning.code for warning in warnings] == [w.code for w in expected]
    assert [warning.code for warning in told] == [w.code for w in expected]
    if kind in MP4:
        assert [warning.code for warning in warnings] == ["cut_short"]


@pytest.mark.parametrize("seed", range(40))
def test_a_mutated_file_is_read_in_parts_or_refused(
    tmp_path: Path, sound: np.ndarray, short_parts: pytest.MonkeyPatch, seed: int
) -> None:
    kind = [*MP4][seed % len(MP4)]
    content = mutated(made(tmp_path / "talk", sound[:8_000], *MP4[kind]), seed)
    first, second = outcome(io.BytesIO(content)), outcome(Forward(content))
    assert first[0] == second[0]
    if first[0] != "refused":
        assert first == second
