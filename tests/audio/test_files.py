"""Sound files of every kind: right samples, constant memory, or a clear error."""

import io
import os
import re
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.audio.bad_files import BAD_FILES, HARMED_FILES
from tests.audio.wav_bytes import encode, wav_bytes
from tests.sounds import noise, silence, speech_like
from voxmlx.audio.files import open_audio
from voxmlx.errors import AudioError

# Suffix: what soundfile.write needs to know beyond it.
FORMATS: dict[str, dict[str, Any]] = {
    "wav": {},
    "flac": {},
    "ogg": {},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {},
    "aiff": {},
    "caf": {},
    "au": {},
    "w64": {},
}


def read(path: str | Path, piece_s: float = 5.0) -> np.ndarray:
    with open_audio(path) as audio:
        pieces = list(audio.pieces(piece_s))
    assert all(piece.ndim == 1 and piece.dtype == np.float32 for piece in pieces)
    assert all(len(piece) > 0 for piece in pieces)
    return np.concatenate(pieces)


def opus_at_48_khz(path: Path) -> tuple[np.ndarray, int]:
    """What libopus, the reference, makes of a file: [n, 2]."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        codec = av.CodecContext.create("libopus", "r")
        assert isinstance(codec, av.AudioCodecContext)
        codec.extradata = stream.codec_context.extradata
        blocks = [
            frame.to_ndarray().reshape(-1, 2)
            for packet in container.demux(stream)
            for frame in codec.decode(packet if packet.size else None)
        ]
    return np.concatenate(blocks).astype(np.float32) / 32768, 48_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`RATE.SUFFIX`: 2.1 s of two different channels at each rate and format."""
    folder = tmp_path_factory.mktemp("files")
    for rate in (16_000, 44_100):
        left, right = speech_like(33_600), noise(33_600, level=0.1)
        stereo = np.stack([left, right], axis=1)
        stereo = soxr.resample(stereo, 16_000, rate)
        for suffix, kind in FORMATS.items():
            # Opus knows five rates, of which 44.1 kHz is none.
            at = 48_000 if suffix == "opus" and rate == 44_100 else rate
            soundfile.write(folder / f"{rate}.{suffix}", stereo, at, **kind)
    return folder


def test_one_channel_comes_out_as_it_is_and_mix_is_the_mean(tmp_path: Path) -> None:
    left, right = (noise(16_001, seed=i) for i in (1, 2))
    path = tmp_path / "two.wav"
    soundfile.write(path, np.stack([left, -left + right / 9], axis=1), 16_000, "FLOAT")
    heard = {}
    for channel in (1, 2, "mix"):
        with open_audio(path, channel=channel) as audio:
            heard[channel] = np.concatenate(list(audio.pieces(0.3)))
    assert np.array_equal(heard[1], left)
    assert np.array_equal(heard[2], -left + right / 9)
    assert np.allclose(heard["mix"], right / 18, atol=1e-6)
    with pytest.raises(AudioError, match="has 2 channels, expected channel 3"):
        open_audio(path, channel=3)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_sound_is_the_mean_of_its_channels_at_16_khz(
    files: Path, suffix: str, rate: int
) -> None:
    path = files / f"{rate}.{suffix}"
    whole, true_rate = soundfile.read(path, dtype="float32")
    if suffix == "opus":
        # libsndfile decodes to the rate that a file was made from.
        whole, true_rate = opus_at_48_khz(path)
    mono = whole.mean(axis=1, dtype=np.float32)
    expected = soxr.resample(mono, true_rate, 16_000, "HQ")
    if true_rate == 16_000:
        expected = mono
    heard = read(path)
    assert len(heard) == len(expected)
    if suffix == "opus":
        # Two decoders, of which the standard asks only that they sound alike.
        assert np.corrcoef(heard, expected)[0, 1] > 0.9999
        return
    # Two decoders of Vorbis and MP3 add in another order.
    atol = {"mp3": 1e-6, "ogg": 2e-7}.get(suffix, 0)
    np.testing.assert_allclose(heard, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "caf"])
def test_16_bit_mono_at_16_khz_comes_out_exactly(tmp_path: Path, suffix: str) -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32768, 20_000).astype(np.int16)
    path = tmp_path / f"talk.{suffix}"
    soundfile.write(path, pcm, 16_000, subtype="PCM_16")
    np.testing.assert_array_equal(read(path), pcm.astype(np.float32) / 32768)


@given(
    suffix=st.sampled_from(sorted(FORMATS)),
    rate=st.sampled_from([16_000, 44_100]),
    piece_s=st.floats(0.003, 3.0),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_samples_do_not_depend_on_the_length_of_pieces(
    files: Path, suffix: str, rate: int, piece_s: float
) -> None:
    path = files / f"{rate}.{suffix}"
    np.testing.assert_array_equal(read(path, piece_s), read(path, 60.0))


@pytest.mark.parametrize("piece_s", [0.1, 1.0])
def test_pieces_are_about_as_long_as_asked_for(files: Path, piece_s: float) -> None:
    # A resampler holds samples back, and gives up to one of its blocks at a time.
    with open_audio(files / "44100.wav") as audio:
        longest = max(len(piece) for piece in audio.pieces(piece_s))
    assert longest <= piece_s * 16_000 + 2_000


def test_many_channels_need_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "array.wav"
    path.write_bytes(wav_bytes(bytes(2 * 512 * 8_000), n_channels=512))
    tracemalloc.start()
    try:
        with open_audio(path) as audio:
            n_samples = sum(len(piece) for piece in audio.pieces(5.0))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_samples == 8_000
    assert peak_bytes < 24 << 20


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_header_tells_how_long_the_sound_is(files: Path, suffix: str) -> None:
    path = files / f"16000.{suffix}"
    with open_audio(path) as audio:
        assert audio.duration_s == pytest.approx(2.1)
        assert not audio.is_pipe


def test_a_length_left_open_is_not_made_up(tmp_path: Path) -> None:
    path = tmp_path / "piped.wav"
    path.write_bytes(wav_bytes(bytes(32_000), riff_size=0, data_size=0))
    with open_audio(path) as audio:
        assert audio.duration_s is None
        assert sum(map(len, audio.pieces())) == 16_000


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_its_name_and_fault(
    tmp_path: Path, name: str
) -> None:
    write, message = BAD_FILES[name]
    write(tmp_path / name)
    with pytest.raises(AudioError, match=message) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", HARMED_FILES)
def test_a_harmed_file_is_read_as_far_as_it_goes_with_a_warning(
    tmp_path: Path, name: str
) -> None:
    write, message = HARMED_FILES[name]
    path = tmp_path / name
    write(path)
    with open_audio(path) as audio:
        n_samples = sum(map(len, audio.pieces()))
        (warning,) = audio.take_warnings()
    assert 10_000 < n_samples <= 4 * 16_000
    assert re.search(message, warning.message)
    assert warning.message.startswith(str(path))
    assert "\n" not in warning.message


@pytest.mark.parametrize("suffix", sorted({*FORMATS} - {"w64"}))
@pytest.mark.parametrize("kept", [0.7, 0.97])
def test_of_a_cut_file_all_that_is_there_is_read(
    files: Path, tmp_path: Path, suffix: str, kept: float
) -> None:
    content = (files / f"44100.{suffix}").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(content[: int(len(content) * kept)])
    whole = read(files / f"44100.{suffix}")
    with open_audio(path) as audio:
        heard = np.concatenate(list(audio.pieces()))
        (warning,) = audio.take_warnings()
    assert warning.code == "cut_short"
    # An Ogg page, of which a cut one is lost, holds up to a second.
    lost = 0.5 if suffix in ("ogg", "opus") else 0.2
    assert kept - lost < len(heard) / len(whole) <= kept + 0.1
    n = len(heard) - 4_000
    assert n <= 0 or np.corrcoef(heard[:n], whole[:n])[0, 1] > 0.999


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("n_samples", [1, 2, 1151, 4097])
def test_a_short_file_is_not_taken_for_a_cut_one(
    tmp_path: Path, suffix: str, n_samples: int
) -> None:
    path = tmp_path / f"short.{suffix}"
    soundfile.write(path, noise(n_samples), 16_000, **FORMATS[suffix])
    assert len(read(path)) == n_samples


@pytest.mark.parametrize("suffix", ["wav", "ogg", "opus", "mp3", "flac"])
def test_of_recordings_joined_in_one_file_all_are_read(
    files: Path, tmp_path: Path, suffix: str
) -> None:
    content = (files / f"16000.{suffix}").read_bytes()
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(content + content)
    once, twice = read(files / f"16000.{suffix}"), read(path)
    # Encoders' padding between the two may stay.
    assert 2 * len(once) <= len(twice) <= 2 * len(once) + 3_000
    second = twice[len(once) :]
    scores = [np.dot(second[lag:][:20_000], once[:20_000]) for lag in range(3_000)]
    lag = int(np.argmax(scores))
    assert np.corrcoef(second[lag:][:20_000], once[:20_000])[0, 1] > 0.99


@pytest.mark.parametrize("suffix", ["wav", "ogg", "opus", "mp3"])
def test_a_tag_behind_the_sound_is_no_fault(
    files: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"tagged.{suffix}"
    path.write_bytes((files / f"16000.{suffix}").read_bytes() + b"TAG" + bytes(125))
    np.testing.assert_array_equal(read(path), read(files / f"16000.{suffix}"))


@pytest.mark.parametrize("n_picture_bytes", [300, 5_000, 300_000])
def test_a_picture_before_an_mp3_is_passed_over(
    files: Path, tmp_path: Path, n_picture_bytes: int
) -> None:
    size = bytes(n_picture_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    tag = b"ID3\x03\0\0" + size + os.urandom(n_picture_bytes)
    path = tmp_path / "tagged.mp3"
    path.write_bytes(tag + (files / "16000.mp3").read_bytes())
    np.testing.assert_array_equal(read(path), read(files / "16000.mp3"))


def test_an_mp3_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    # Loud, then silent: by the bit rate of the start, libsndfile would guess that it
    # is over after a few seconds.
    sound = np.concatenate([noise(16_000, level=0.3), silence(16_000 * 19)])
    whole = tmp_path / "whole.mp3"
    soundfile.write(whole, sound, 16_000, bitrate_mode="VARIABLE", compression_level=0)
    content = whole.read_bytes()
    second = content.index(content[:2], 4)
    assert b"Xing" in content[:second]
    bare = tmp_path / "bare.mp3"
    bare.write_bytes(content[second:])
    with open_audio(bare) as audio:
        assert audio.duration_s is None
        assert sum(map(len, audio.pieces())) == pytest.approx(len(sound), abs=2_304)


def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> io.BufferedReader:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(AudioError, match=r"talk\.wav may not be read"):
        open_audio(tmp_path / "talk.wav")


def test_a_named_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    sound = speech_like(16_000)
    wav = wav_bytes(encode(sound, "f32"), encoding="f32")
    writer = threading.Thread(target=path.write_bytes, args=(wav,))
    writer.start()
    with open_audio(path) as audio:
        assert audio.is_pipe
        np.testing.assert_array_equal(np.concatenate(list(audio.pieces())), sound)
    writer.join()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_pipe_gives_the_samples_of_the_file(
    files: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    content = (files / f"44100.{suffix}").read_bytes()
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    np.testing.assert_array_equal(read(path), read(files / f"44100.{suffix}"))
    writer.join()


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_nothing_stays_open(files: Path, tmp_path: Path, suffix: str) -> None:
    process = psutil.Process()
    content = (files / f"44100.{suffix}").read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(content[: len(content) // 2])
    page = tmp_path / "page.html"
    page.write_text("<html>not found</html>" * 9)
    read(files / f"44100.{suffix}")
    # Threads of other tests may end, and close their files, meanwhile.
    n_open, threads = process.num_fds(), {*threading.enumerate()}
    for _ in range(3):
        with open_audio(files / f"44100.{suffix}") as audio:
            next(audio.pieces(0.01))
        read(cut)
        with pytest.raises(AudioError):
            read(page)
    assert process.num_fds() <= n_open
    assert {*threading.enumerate()} <= threads


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_half_an_hour_needs_less_memory_than_a_minute_of_samples(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"long.{suffix}"
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
        for _ in range(30):
            file.write(np.zeros(16_000 * 60, np.int16))
    tracemalloc.start()
    try:
        with open_audio(path) as audio:
            n_samples = sum(map(len, audio.pieces()))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_samples == 16_000 * 60 * 30
    assert peak_bytes < 60 * 16_000 * 4
