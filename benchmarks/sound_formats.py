"""Every kind of sound file, made and read again: how alike, and how far off in time.

    python -m benchmarks.sound_formats --write docs/sound-formats.md

Needs no other program: PyAV makes the files. Each is read from its path and from a pipe
that cannot seek; both must give the same samples.
"""

import argparse
import io
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from benchmarks.demo_sound import sample
from voxmlx.audio.files import open_audio

RATE = 16_000


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: its name, and what makes its bytes from float32 [n] at 16 kHz."""

    name: str
    make: Callable[[np.ndarray], bytes]
    raw_rate: int | None = None
    # A container that keeps no encoder delay puts the sound this late.
    has_delay: bool = False


def _av(
    container: str, codec: str, rate: int, channels: int = 1, **options: str
) -> Callable[[np.ndarray], bytes]:
    def make(sound: np.ndarray) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "sound")
            encode_file(path, container, codec, rate, channels, sound, options)
            return path.read_bytes()

    return make


def encode_file(
    path: Path,
    container: str,
    codec: str,
    rate: int,
    channels: int,
    sound: np.ndarray,
    options: dict[str, str],
) -> None:
    """Write float32 [n] at 16 kHz, the same in all channels."""
    layouts = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1", 8: "7.1"}
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        context = stream.codec_context
        context.layout = layouts[channels]
        context.bit_rate = 64_000 * channels
        if codec == "dca":
            context.options = {"strict": "-2"}
        context.open()
        at_rate = soxr.resample(sound, RATE, rate, "VHQ").astype(np.float32)
        planes = np.tile(at_rate, (channels, 1))
        frame = av.AudioFrame.from_ndarray(planes, "fltp", layouts[channels])
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        assert context.format is not None
        resampler = av.AudioResampler(
            context.format.name, layouts[channels], rate, context.frame_size or 1024
        )
        for ready in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(ready))
        file.mux(stream.encode(None))


def _sf(
    kind: str, subtype: str | None, rate: int = RATE, channels: int = 1
) -> Callable[[np.ndarray], bytes]:
    def make(sound: np.ndarray) -> bytes:
        content = io.BytesIO()
        at_rate = soxr.resample(sound, RATE, rate, "VHQ")
        many = np.tile(at_rate[:, None], (1, channels))
        soundfile.write(content, many, rate, format=kind, subtype=subtype)
        return content.getvalue()

    return make


def _wav_sized(size: int) -> Callable[[np.ndarray], bytes]:
    def make(sound: np.ndarray) -> bytes:
        wav = bytearray(_sf("WAV", "PCM_16")(sound))
        at = wav.index(b"data") + 4
        wav[4:8] = wav[at : at + 4] = struct.pack("<I", size)
        return bytes(wav)

    return make


def _stale(sound: np.ndarray) -> bytes:
    return _wav_sized(len(sound))(sound)


def _broadcast_wave(sound: np.ndarray) -> bytes:
    wav = _sf("WAV", "PCM_24", 48_000)(sound)
    bext = b"bext" + struct.pack("<I", 602) + bytes(602)
    return wav[:12] + bext + wav[12:]


def _pcm(rate: int) -> Callable[[np.ndarray], bytes]:
    def make(sound: np.ndarray) -> bytes:
        at_rate = soxr.resample(sound, RATE, rate, "VHQ")
        return np.round(at_rate * 32767).astype("<i2").tobytes()

    return make


KINDS = [
    *(Kind(f"wav, 16 bits, {r} Hz", _sf("WAV", "PCM_16", r)) for r in
      (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000)),
    Kind("wav, 16 bits, 4000 Hz", _sf("WAV", "PCM_16", 4_000)),
    Kind("wav, 8 bits", _sf("WAV", "PCM_U8")),
    Kind("wav, 24 bits, 2 channels", _sf("WAV", "PCM_24", 48_000, 2)),
    Kind("wav, 32 bits, 4 channels", _sf("WAV", "PCM_32", 48_000, 4)),
    Kind("wav, float, 6 channels", _sf("WAV", "FLOAT", 48_000, 6)),
    Kind("wav, double, 8 channels", _sf("WAV", "DOUBLE", 44_100, 8)),
    Kind("wav, mu-law, 8000 Hz", _sf("WAV", "ULAW", 8_000)),
    Kind("wav, A-law, 8000 Hz", _sf("WAV", "ALAW", 8_000)),
    Kind("wav, IMA ADPCM", _sf("WAV", "IMA_ADPCM")),
    Kind("wav, MS ADPCM", _sf("WAV", "MS_ADPCM")),
    Kind("wav, GSM 6.10, 8000 Hz", _sf("WAV", "GSM610", 8_000)),
    Kind("wav, EXTENSIBLE", _sf("WAVEX", "PCM_24", 48_000, 2)),
    Kind("wav, BWF (bext)", _broadcast_wave),
    Kind("wav, sizes 0", _wav_sized(0)),
    Kind("wav, sizes 0xFFFFFFFF", _wav_sized(0xFFFF_FFFF)),
    Kind("wav, stale sizes", _stale),
    Kind("RF64", _sf("RF64", "PCM_16")),
    Kind("W64", _sf("W64", "PCM_16")),
    Kind("AIFF", _sf("AIFF", "PCM_16", 44_100, 2)),
    Kind("AIFF-C, float", _sf("AIFF", "FLOAT", 44_100)),
    Kind("CAF, 16 bits", _sf("CAF", "PCM_16", 44_100)),
    Kind("CAF, ALAC", _av("caf", "alac", 44_100)),
    Kind("au", _sf("AU", "PCM_16")),
    Kind("flac, 16 bits", _sf("FLAC", "PCM_16", 44_100, 2)),
    Kind("flac, 24 bits", _sf("FLAC", "PCM_24", 96_000)),
    Kind("ogg, Vorbis", _sf("OGG", "VORBIS", 44_100)),
    Kind("ogg, Opus", _sf("OGG", "OPUS", 48_000, 2)),
    Kind("ogg, FLAC", _av("ogg", "flac", 44_100)),
    Kind("mp3, 44100 Hz", _av("mp3", "libmp3lame", 44_100)),
    Kind("mp3, 16000 Hz", _av("mp3", "libmp3lame", 16_000)),
    Kind("m4a, AAC", _av("ipod", "aac", 44_100)),
    Kind("m4a, AAC, 2 channels, 48000 Hz", _av("ipod", "aac", 48_000, 2)),
    Kind("m4a, AAC, index first", _av("ipod", "aac", 44_100, movflags="faststart")),
    Kind("m4a, ALAC", _av("ipod", "alac", 44_100, 2)),
    Kind("mp4, AAC", _av("mp4", "aac", 48_000)),
    Kind("mov, AAC", _av("mov", "aac", 44_100)),
    Kind("mov, 16 bits", _av("mov", "pcm_s16le", 48_000)),
    Kind("3gp, AAC", _av("3gp", "aac", 16_000)),
    Kind("webm, Opus", _av("webm", "libopus", 48_000)),
    Kind("mkv, Opus", _av("matroska", "libopus", 48_000)),
    Kind("mkv, FLAC", _av("matroska", "flac", 48_000)),
    Kind("mkv, 16 bits", _av("matroska", "pcm_s16le", 48_000)),
    Kind("WavPack", _av("wv", "wavpack", 44_100)),
    Kind("TTA", _av("tta", "tta", 44_100)),
    Kind("no header, --raw", _pcm(16_000), raw_rate=16_000),
    Kind("no header, --rate 8000", _pcm(8_000), raw_rate=8_000),
    Kind("mkv, AAC", _av("matroska", "aac", 48_000)),
    Kind("mp4, AAC, fragments without an edit list",
         _av("mp4", "aac", 48_000, movflags="frag_keyframe+empty_moov"), has_delay=True),
    Kind("aac (ADTS)", _av("adts", "aac", 48_000), has_delay=True),
    Kind("ts, AAC", _av("mpegts", "aac", 48_000), has_delay=True),
    Kind("flv, AAC", _av("flv", "aac", 44_100), has_delay=True),
    Kind("wma", _av("asf", "wmav2", 44_100), has_delay=True),
    Kind("ac3", _av("ac3", "ac3", 48_000), has_delay=True),
    Kind("eac3", _av("eac3", "eac3", 48_000), has_delay=True),
    Kind("mp2", _av("mp2", "mp2", 48_000), has_delay=True),
    Kind("avi, mp3", _av("avi", "libmp3lame", 44_100), has_delay=True),
]  # fmt: skip


class Forward:
    """Bytes that can be read once, as from a pipe."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read(self, n_bytes: int, /) -> bytes:
        return self._file.read(n_bytes)


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one kind of file; `offset_ms` is positive where the sound is late."""

    name: str
    correlation: float
    offset_ms: float
    is_pipe_alike: bool
    has_delay: bool


def source() -> np.ndarray:
    """Return five seconds of speech, below 1.8 kHz so that 4 kHz can hold it."""
    speech = sample()[: 5 * RATE]
    low = soxr.resample(soxr.resample(speech, RATE, 3_600, "VHQ"), 3_600, RATE, "VHQ")
    return low.astype(np.float32)[: 5 * RATE]


def measure(kind: Kind, sound: np.ndarray) -> Row:
    """Make a file, read it both ways, and compare."""
    content = kind.make(sound)
    heard = _read(io.BytesIO(content), kind.raw_rate)
    piped = _read(Forward(content), kind.raw_rate)
    offset, correlation = _aligned(sound, heard)
    is_alike = len(piped) - len(heard) in range(2_000) and np.array_equal(
        heard, piped[: len(heard)]
    )
    return Row(kind.name, correlation, offset, is_alike, kind.has_delay)


def _read(file: io.BytesIO | Forward, raw_rate: int | None) -> np.ndarray:
    with open_audio(file, raw_rate=raw_rate) as audio:
        return np.concatenate(list(audio.pieces()))


def _aligned(sound: np.ndarray, heard: np.ndarray) -> tuple[float, float]:
    """Return by how many ms `heard` is late, to 1/8 sample, and the correlation there."""
    finer = 8
    a = soxr.resample(sound, RATE, RATE * finer, "HQ")
    b = soxr.resample(heard, RATE, RATE * finer, "HQ")
    n_fft = 1 << (len(a) + len(b)).bit_length()
    product = np.fft.rfft(b, n_fft) * np.conj(np.fft.rfft(a, n_fft))
    lag = int(np.argmax(np.fft.irfft(product, n_fft)))
    lag = lag - n_fft if lag > n_fft // 2 else lag
    first, last = max(0, -lag), min(len(a), len(b) - lag)
    within = np.corrcoef(a[first:last], b[first + lag : last + lag])[0, 1]
    return lag / (RATE * finer) * 1000, float(within)


def table(rows: list[Row]) -> str:
    """Return the page as Markdown."""
    head = "| kind | correlation | offset, ms | pipe alike |\n|---|---|---|---|\n"

    def lines(has_delay: bool) -> str:
        return "".join(
            f"| {row.name} | {row.correlation:.4f} | {row.offset_ms:.2f} | "
            f"{'yes' if row.is_pipe_alike else 'no'} |\n"
            for row in rows
            if row.has_delay == has_delay
        )

    return (
        "# Sound formats\n\n"
        "`python -m benchmarks.sound_formats --write docs/sound-formats.md` makes this "
        "page.\nEach file is made from five seconds of speech and read again. The "
        "correlation is with\nthe source. The offset says how late the sound is.\n\n"
        + head
        + lines(False)
        + "\nThese containers do not say how long the encoder's start-up is. The sound "
        "stands where\nthe container puts it, and a film's pictures fit it.\n\n"
        + head
        + lines(True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--write", metavar="FILE.md", type=Path)
    arguments = parser.parse_args()
    sound = source()
    page = table([measure(kind, sound) for kind in KINDS])
    if arguments.write is None:
        print(page)
    else:
        arguments.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
