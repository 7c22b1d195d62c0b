"""WAV and headerless PCM, read front to back from anything that gives bytes."""

import io
import os
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audio.wav_bytes import ENCODINGS, Trickle, encode, riff_part, wav_bytes
from tests.sounds import noise
from voxmlx.audio.wav_header import WAV_HEAD_BYTES, ByteStream, is_wav, read_wav_header
from voxmlx.audio.wav_stream import (
    PcmStream,
    is_plain_pcm,
    raw_stream,
    refuse_cut_file,
)
from voxmlx.errors import AudioError

PCM = encode(noise(1000, level=0.3), "s16")


def open_wav(content: bytes | ByteStream) -> PcmStream:
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    header = read_wav_header(stream, stream.read(WAV_HEAD_BYTES), "talk.wav")
    return PcmStream(stream, header, "talk.wav")


def read_all(stream: PcmStream, max_samples: int = 4096) -> np.ndarray:
    blocks = list(stream.blocks(max_samples))
    assert all(1 <= len(block) <= max_samples for block in blocks)
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)


@pytest.mark.parametrize("n_channels", [1, 2, 6])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("extensible", [False, True])
def test_samples_are_those_libsndfile_reads(
    encoding: str, n_channels: int, extensible: bool
) -> None:
    sound = noise(999 * n_channels, level=0.3).reshape(-1, n_channels)
    wav = wav_bytes(
        encode(sound, encoding),
        encoding=encoding,
        n_channels=n_channels,
        extensible=extensible,
        rate=44_100,
    )
    expected, rate = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
    stream = open_wav(wav)
    assert (stream.rate, stream.n_samples) == (rate, 999)
    got = read_all(stream)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)


def test_16_bit_samples_are_integers_over_32768() -> None:
    pcm = np.arange(-32768, 32768).astype("<i2")
    got = read_all(open_wav(wav_bytes(pcm.tobytes())))[:, 0]
    np.testing.assert_array_equal(got, pcm.astype(np.float64) / 32768)


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=8),
    max_samples=st.integers(1, 1200),
    n_channels=st.sampled_from([1, 2, 5]),
    encoding=st.sampled_from(["s16", "s24", "f32"]),
    is_length_known=st.booleans(),
)
def test_samples_do_not_depend_on_how_the_bytes_arrive(
    sizes: list[int],
    max_samples: int,
    n_channels: int,
    encoding: str,
    is_length_known: bool,
) -> None:
    sound = noise(300 * n_channels, level=0.3).reshape(-1, n_channels)
    wav = wav_bytes(
        encode(sound, encoding),
        n_channels=n_channels,
        encoding=encoding,
        data_size=None if is_length_known else 0xFFFF_FFFF,
    )
    whole = read_all(open_wav(wav))
    pieces = read_all(open_wav(Trickle(wav, sizes)), max_samples)
    np.testing.assert_array_equal(pieces, whole)


@pytest.mark.parametrize(
    ("riff_size", "data_size"),
    [
        pytest.param(0xFFFF_FFFF, 0xFFFF_FFFF, id="ffmpeg"),
        pytest.param(0x7FFF_F024, 0x7FFF_F000, id="sox"),
        pytest.param(0x8000_0024, 0x8000_0000, id="arecord"),
        pytest.param(0, 0, id="zeros"),
        pytest.param(36, 0, id="an empty recording, never filled in"),
        pytest.param(0xFFFF_FFFF, 0, id="only the RIFF size is a stand-in"),
    ],
)
def test_a_size_its_writer_left_open_means_to_the_end(
    riff_size: int, data_size: int
) -> None:
    wav = wav_bytes(PCM, riff_size=riff_size, data_size=data_size)
    stream = open_wav(wav)
    assert stream.n_samples is None
    assert len(read_all(stream)) == 1000


def test_an_honest_zero_is_not_a_size_left_open() -> None:
    stream = open_wav(wav_bytes(b"", after=riff_part(b"LIST", b"INFO")))
    assert stream.n_samples == 0
    assert len(read_all(stream)) == 0


def test_sizes_beyond_32_bits_are_read_from_rf64() -> None:
    ds64 = riff_part(b"ds64", struct.pack("<QQQI", 5 << 32, len(PCM), 1000, 0))
    plain = wav_bytes(PCM, data_size=0xFFFF_FFFF)
    fmt_and_data = plain[WAV_HEAD_BYTES:]
    stream = open_wav(b"RF64\xff\xff\xff\xffWAVE" + ds64 + fmt_and_data)
    assert stream.n_samples == 1000
    assert len(read_all(stream)) == 1000


def test_parts_that_are_not_sound_are_passed_over() -> None:
    labels = riff_part(b"LIST", b"INFOISFT\x05\0\0\0odd!\0") + riff_part(b"odd ", b"x")
    wav = wav_bytes(PCM, before=labels, after=labels)
    np.testing.assert_array_equal(
        read_all(open_wav(wav)), read_all(open_wav(wav_bytes(PCM)))
    )


@settings(deadline=None)
@given(n_kept=st.integers(0, len(wav_bytes(PCM)) - 1))
def test_a_wav_cut_anywhere_is_refused(n_kept: int) -> None:
    cut = wav_bytes(PCM)[:n_kept]
    if len(cut) < WAV_HEAD_BYTES:
        assert not is_wav(cut)
        return
    with pytest.raises(AudioError, match=r"talk\.wav .*(ends|is cut short)"):
        read_all(open_wav(cut))


def test_a_cut_wav_says_how_much_is_missing() -> None:
    with pytest.raises(
        AudioError, match=r"promises 1000 samples \(0\.1 s\), it holds 999"
    ):
        read_all(open_wav(wav_bytes(PCM)[:-1]))


def test_a_cut_file_is_refused_before_it_is_decoded() -> None:
    wav = wav_bytes(PCM)
    header = read_wav_header(io.BytesIO(wav[12:]), wav[:12], "talk.wav")
    refuse_cut_file(header, len(wav), "talk.wav")
    with pytest.raises(AudioError, match="cut short"):
        refuse_cut_file(header, len(wav) - 1, "talk.wav")


def test_the_samples_before_a_cut_are_heard() -> None:
    stream = open_wav(wav_bytes(PCM)[:-100])
    blocks = stream.blocks(500)
    assert [len(next(blocks)), len(next(blocks))] == [500, 450]
    with pytest.raises(AudioError, match="cut short"):
        next(blocks)


def test_an_open_length_that_ends_inside_a_sample_is_refused() -> None:
    wav = wav_bytes(PCM, n_channels=2, data_size=0xFFFF_FFFF)
    with pytest.raises(AudioError, match="ends in the middle of a sample: 3 of 4"):
        read_all(open_wav(wav[:-1]))


def test_headerless_sound_is_16_bit_at_16_khz() -> None:
    stream = raw_stream(io.BytesIO(PCM[12:]), PCM[:12], "standard input")
    assert (stream.rate, stream.n_samples) == (16_000, None)
    expected = np.frombuffer(PCM, "<i2")[:, None] / 32768
    np.testing.assert_array_equal(read_all(stream), expected)


def test_headerless_sound_has_the_rate_that_is_stated() -> None:
    stream = raw_stream(io.BytesIO(PCM), b"", "standard input", 8_000)
    assert stream.rate == 8_000
    np.testing.assert_array_equal(
        read_all(stream), np.frombuffer(PCM, "<i2")[:, None] / 32768
    )


def test_headerless_sound_of_an_odd_length_is_refused() -> None:
    stream = raw_stream(io.BytesIO(PCM + b"\0"), b"", "standard input")
    with pytest.raises(AudioError, match="standard input ends in the middle"):
        read_all(stream)


def test_wavs_one_after_the_other_are_refused() -> None:
    with pytest.raises(AudioError, match="several WAV files"):
        read_all(open_wav(wav_bytes(PCM) + wav_bytes(PCM)))


def test_a_pipe_is_read_to_its_end() -> None:
    content = io.BytesIO(wav_bytes(PCM, after=riff_part(b"LIST", bytes(100_000))))
    read_all(open_wav(content))
    assert content.read() == b""


def test_a_live_pipe_is_heard_before_it_ends() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reader, open(write_end, "wb", buffering=0) as writer:
        writer.write(wav_bytes(b"", riff_size=0, data_size=0) + PCM[:320])
        blocks = open_wav(reader).blocks(80_000)
        assert len(next(blocks)) == 160


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (wav_bytes(PCM, n_channels=1).replace(b"fmt ", b"fmt_"), "'fmt '"),
        (wav_bytes(PCM, rate=0), "0 Hz"),
        (
            wav_bytes(PCM).replace(b"fmt \x10\0\0\0", b"fmt \xff\xff\xff\x7f"),
            "2147483647 bytes",
        ),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(wav: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        open_wav(wav)


def test_a_codec_in_a_wav_is_not_taken_for_pcm() -> None:
    mu_law = bytearray(wav_bytes(PCM))
    mu_law[20:22] = struct.pack("<H", 7)
    header = read_wav_header(io.BytesIO(mu_law[12:]), bytes(mu_law[:12]), "talk.wav")
    assert not is_plain_pcm(header)
