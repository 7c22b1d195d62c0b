"""Sound files of many kinds, made with PyAV from samples of 16 kHz."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.stream import Disposition

__all__ = ["KINDS", "make_file", "make_film", "make_sound", "make_tracks"]

# Suffix: (container, codec, rate).
KINDS: dict[str, tuple[str, str, int]] = {
    "m4a": ("ipod", "aac", 48_000),
    "alac.m4a": ("ipod", "alac", 16_000),
    "mp4": ("mp4", "aac", 44_100),
    "mov": ("mov", "aac", 44_100),
    "mkv": ("matroska", "aac", 44_100),
    "webm": ("webm", "libopus", 48_000),
    "wma": ("asf", "wmav2", 44_100),
    "ac3": ("ac3", "ac3", 48_000),
}


def make_file(
    path: Path,
    sound: np.ndarray,
    kind: str,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write float32 [n] at 16 kHz as one of KINDS."""
    return make_sound(path, sound, *KINDS[kind], options)


def make_sound(
    path: Path,
    sound: np.ndarray,
    container: str,
    codec: str,
    rate: int,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write float32 [n] at 16 kHz in one channel."""
    with av.open(str(path), "w", format=container, options=dict(options or {})) as file:
        _encode(file, _add_sound(file, codec, rate), sound)
    return path


def make_tracks(
    path: Path,
    tracks: Mapping[str, np.ndarray],
    container: str,
    marked: str | None = None,
) -> Path:
    """Write sound tracks by their languages, of which `marked` is the main one."""
    with av.open(str(path), "w", format=container) as file:
        streams: list[tuple[av.AudioStream, np.ndarray]] = []
        for language, sound in tracks.items():
            stream = _add_sound(file, "aac", 48_000)
            stream.metadata["language"] = language
            if marked is not None:
                is_marked = language == marked
                stream.disposition = (
                    Disposition.default if is_marked else Disposition(0)
                )
            streams.append((stream, sound))
        for stream, sound in streams:
            _encode(file, stream, sound)
    return path


def make_film(
    path: Path, sound: np.ndarray, late_s: float, container: str = "matroska"
) -> Path:
    """Write a film of black pictures from 0 s on, whose sound begins at `late_s`."""
    with av.open(str(path), "w", format=container) as file:
        video = file.add_stream("mpeg4", rate=5)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        audio = _add_sound(file, "aac", 44_100)
        black = np.zeros((120, 160, 3), np.uint8)
        for i in range(int(5 * (late_s + len(sound) / 16_000 + 1))):
            frame = av.VideoFrame.from_ndarray(black, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 5)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        _encode(file, audio, sound, late_s)
    return path


def _add_sound(file: OutputContainer, codec: str, rate: int) -> av.AudioStream:
    stream = file.add_stream(codec, rate=rate)
    assert isinstance(stream, av.AudioStream)
    stream.codec_context.layout = "mono"
    stream.codec_context.bit_rate = 64_000
    return stream


def _encode(
    file: OutputContainer,
    stream: av.AudioStream,
    sound: np.ndarray,
    late_s: float = 0.0,
) -> None:
    codec = stream.codec_context
    resampler = av.AudioResampler(
        codec.format.name if codec.format else "fltp",
        "mono",
        codec.sample_rate,
        frame_size=codec.frame_size or 0,
    )
    frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), "fltp", "mono")
    frame.sample_rate, frame.time_base = 16_000, Fraction(1, 16_000)
    frame.pts = 0
    late = round(late_s * codec.sample_rate)
    for ready in [*resampler.resample(frame), *resampler.resample(None)]:
        ready.pts = (ready.pts or 0) + late
        file.mux(stream.encode(ready))
    file.mux(stream.encode(None))
