"""Every kind of file that must be refused, and what its error must say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.audio.wav_bytes import encode, wav_bytes
from tests.sounds import speech_like

__all__ = ["BAD_FILES", "HARMED_FILES", "write_cut"]

_SOUND = speech_like(16_000)


def write_cut(path: Path, n_missing: int, n: int = 1, **kind: Any) -> None:
    """`n` seconds of sound in a format of libsndfile, less its last bytes."""
    soundfile.write(path, np.tile(_SOUND, n), 16_000, **kind)
    path.write_bytes(path.read_bytes()[:-n_missing])


def _write_float(path: Path, value: float, at: int) -> None:
    sound = np.stack([_SOUND, _SOUND], axis=1)
    sound[at, 1] = value
    path.write_bytes(wav_bytes(encode(sound, "f32"), encoding="f32", n_channels=2))


# Name of the file: (what puts it there, a pattern of the error).
BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.wav": (lambda path: None, "does not exist"),
    "directory.wav": (lambda path: path.mkdir(), "is a directory"),
    "empty.wav": (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
    "text.wav": (
        lambda path: path.write_text("This is not sound.\n" * 20),
        "is text, expected sound; look at it with: ffprobe ",
    ),
    "short.mp3": (lambda path: path.write_text("no"), "is text, expected sound"),
    "page.mp3": (
        lambda path: path.write_text("<!DOCTYPE html>\n<html><body>404" + "</p>" * 99),
        r"is a web page \(HTML\), expected sound; look at it with: ffprobe ",
    ),
    "windows.html": (
        lambda path: path.write_text("<html><p>404 nicht gefunden", "utf-16"),
        r"is a web page \(HTML\)",
    ),
    "latin.txt": (
        lambda path: path.write_text(
            "schön und gut, müde und fröhlich " * 9, "latin-1"
        ),
        "is text",
    ),
    "list.m3u8": (
        lambda path: path.write_text("#EXTM3U\n#EXTINF:5,\nother.ts\n"),
        "is a playlist",
    ),
    "picture.wav": (
        lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500)),
        "is a PNG picture",
    ),
    "zeros.wav": (lambda path: path.write_bytes(bytes(50_000)), "not a sound file"),
    "noise.wav": (
        lambda path: path.write_bytes(np.random.default_rng(1).bytes(200_000)),
        r"not a sound file .* convert it with: ffmpeg -i \S+ sound\.wav; .*--raw",
    ),
    "film.m4a": (
        lambda path: path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500)),
        r"without its index.*ffmpeg -i \S+ sound\.wav",
    ),
    "silent.wav": (lambda path: path.write_bytes(wav_bytes(b"")), "holds no sound"),
    "silent.ogg": (
        lambda path: soundfile.write(path, np.zeros(0), 16_000),
        "holds no sound",
    ),
    "nan.wav": (
        lambda path: _write_float(path, float("nan"), 12_000),
        r"NaN or infinite sample at 0\.750 s",
    ),
    "infinite.wav": (
        lambda path: _write_float(path, float("-inf"), 4_000),
        r"NaN or infinite sample at 0\.250 s",
    ),
    "cut_header.wav": (
        lambda path: path.write_bytes(wav_bytes(b"")[:30]),
        "ends inside its header",
    ),
    "large.wav": (
        lambda path: _write_float(path, 12_000.0, 8_000),
        r"sample of 12000 at 0\.500 s, expected -1 to 1",
    ),
    "rate.wav": (
        lambda path: path.write_bytes(wav_bytes(bytes(100), rate=7)),
        "sample rate of 7 Hz",
    ),
}

# Files that are read as far as they go: (what puts it there, what is warned of).
HARMED_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut.wav": (
        lambda path: write_cut(path, 2),
        r"is cut short: .* promises 1\.000 s .* 1 ms is missing",
    ),
    "cut_adpcm.wav": (
        lambda path: write_cut(path, 300, subtype="IMA_ADPCM"),
        "is cut short",
    ),
    "cut.aiff": (lambda path: write_cut(path, 320), "is cut short"),
    "cut.au": (lambda path: write_cut(path, 320), "is cut short"),
    "cut.caf": (lambda path: write_cut(path, 320), "is cut short"),
    "cut.flac": (lambda path: write_cut(path, 10), "is cut short"),
    "cut.ogg": (lambda path: write_cut(path, 10, n=4), "is cut short"),
    "cut.opus": (
        lambda path: write_cut(path, 10, n=4, format="OGG", subtype="OPUS"),
        "is cut short",
    ),
    "cut.mp3": (lambda path: write_cut(path, 1000), "is cut short"),
    "stale.wav": (
        lambda path: path.write_bytes(
            wav_bytes(encode(_SOUND, "s16"), riff_size=16_036, data_size=16_000)
        ),
        "holds more sound than its header says: 1.000 s were read, not 0.500",
    ),
}
