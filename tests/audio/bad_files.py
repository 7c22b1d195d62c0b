"""Every kind of file that must be refused, and what its error must say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.audio.wav_bytes import encode, wav_bytes
from tests.sounds import speech_like

__all__ = ["BAD_FILES", "write_cut"]

_SOUND = speech_like(16_000)


def write_cut(path: Path, n_missing: int, **kind: Any) -> None:
    """One second of sound in a format of libsndfile, less its last bytes."""
    soundfile.write(path, _SOUND, 16_000, **kind)
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
        "not a sound file",
    ),
    "film.m4a": (
        lambda path: path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500)),
        "not a sound file.*convert others with ffmpeg",
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
    "cut.wav": (
        lambda path: write_cut(path, 2),
        r"is cut short: .* 16000 samples \(1\.0 s\), it holds 15999",
    ),
    "cut_header.wav": (
        lambda path: path.write_bytes(wav_bytes(b"")[:30]),
        "ends inside its header",
    ),
    "cut_adpcm.wav": (
        lambda path: write_cut(path, 300, subtype="IMA_ADPCM"),
        "is cut short",
    ),
    "cut.aiff": (lambda path: write_cut(path, 2), "is cut short"),
    "cut.au": (lambda path: write_cut(path, 2), "is cut short"),
    "cut.w64": (lambda path: write_cut(path, 300), "is cut short"),
    "cut.caf": (lambda path: write_cut(path, 100), "is cut short"),
    "cut.flac": (lambda path: write_cut(path, 10), "damaged or cut short"),
    "cut.ogg": (lambda path: write_cut(path, 10), "is cut short"),
    "cut.opus": (
        lambda path: write_cut(path, 10, format="OGG", subtype="OPUS"),
        "is cut short",
    ),
    "cut.mp3": (lambda path: write_cut(path, 1000), "is cut short"),
    "rate.wav": (
        lambda path: path.write_bytes(wav_bytes(bytes(100), rate=7)),
        "sample rate of 7 Hz",
    ),
}
