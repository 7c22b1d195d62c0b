"""Sound on its way to a server: a file as it is, or decoded here and sent as FLAC.

The rule. A server of ours gets every file as it is. Another one gets what all of them
read, up to 24 MB: wav, flac, mp3, ogg. All else is decoded here: film, m4a, pipes, one
channel, samples without a header, and what a server has refused. It goes as 16-bit FLAC
at 16 kHz, to a server of ours whole, to another one in pieces of ten minutes at most. A
piece ends in the quietest tenth of a second of its last half minute.
"""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from voxmlx.audio.files import AudioFile
from voxmlx.config import SAMPLE_RATE

__all__ = ["SoundPiece", "flac_pieces", "is_read_by_all"]

# OpenAI and vLLM take 25 MB, the form included.
MAX_BYTES_FOR_ALL = 24_000_000
_SUFFIXES_FOR_ALL = {".wav", ".flac", ".mp3", ".ogg"}
_MAGIC_FOR_ALL = (
    b"RIFF",
    b"fLaC",
    b"ID3",
    b"OggS",
    b"\xff\xfb",
    b"\xff\xf3",
    b"\xff\xf2",
)

# Ten minutes are 19 MB even if nothing of them can be compressed.
_PIECE_SAMPLES = 600 * SAMPLE_RATE
_CUT_SAMPLES = 30 * SAMPLE_RATE
_QUIET_SAMPLES = SAMPLE_RATE // 10


@dataclass(frozen=True, slots=True)
class SoundPiece:
    """A FLAC file without a name, and where in the sound it begins and ends."""

    start_ms: int
    end_ms: int
    file: BinaryIO


def is_read_by_all(path: Path) -> bool:
    """Return whether every server of the dialect takes the file as it is."""
    if path.suffix.lower() not in _SUFFIXES_FOR_ALL:
        return False
    with open(path, "rb") as file:
        head = file.read(4)
    return head.startswith(_MAGIC_FOR_ALL) and path.stat().st_size <= MAX_BYTES_FOR_ALL


def flac_pieces(audio: AudioFile, *, is_whole: bool) -> Iterator[SoundPiece]:
    """Decode an input and yield it in pieces, each valid until the next.

    With `is_whole` there is one. Raises AudioError, and OSError for a disk that is full.
    """
    start = 0
    pending = np.zeros(0, np.float32)
    sound = audio.pieces()
    is_over = False
    while not is_over:
        with tempfile.TemporaryFile(prefix="voxmlx-") as file:
            writing = _FlacWriter(file)
            n_written = 0
            while True:
                piece = next(sound, None)
                is_over = piece is None
                if piece is not None:
                    pending = np.concatenate([pending, piece])
                n_held = 0 if is_over or is_whole else _CUT_SAMPLES
                n_free = max(0, len(pending) - n_held)
                if not is_whole and n_written + len(pending) >= _PIECE_SAMPLES:
                    n_free = _quietest(pending[: _PIECE_SAMPLES - n_written])
                    is_over = is_over and n_free == len(pending)
                    n_written += writing.write(pending[:n_free])
                    pending = pending[n_free:]
                    break
                n_written += writing.write(pending[:n_free])
                pending = pending[n_free:]
                if is_over:
                    break
            writing.close()
            if n_written or start == 0:
                yield SoundPiece(_ms(start), _ms(start + n_written), file)
            start += n_written


def _quietest(samples: np.ndarray) -> int:
    """Return where the quietest tenth of a second of the last half minute has its middle."""
    begin = max(0, len(samples) - _CUT_SAMPLES)
    n_windows = (len(samples) - begin) // _QUIET_SAMPLES
    if n_windows == 0:
        return len(samples)
    windows = samples[begin : begin + n_windows * _QUIET_SAMPLES]
    power = np.square(windows.reshape(n_windows, _QUIET_SAMPLES)).sum(axis=1)
    return begin + int(np.argmin(power)) * _QUIET_SAMPLES + _QUIET_SAMPLES // 2


class _FlacWriter:
    """Samples on their way into a FLAC file."""

    def __init__(self, file: BinaryIO) -> None:
        # Local: no command needs it before there is sound to be encoded.
        import av

        self._av = av
        # PyAV's types leave out what kind of packets a container takes.
        self._container: Any = av.open(file, "w", format="flac")
        self._stream: Any = self._container.add_stream("flac", rate=SAMPLE_RATE)
        self._stream.codec_context.layout = "mono"
        self._stream.codec_context.format = "s16"
        self._n_samples = 0

    def write(self, samples: np.ndarray) -> int:
        """Add float samples [n]; return n."""
        for start in range(0, len(samples), SAMPLE_RATE):
            part = samples[start : start + SAMPLE_RATE]
            pcm = np.rint(part * 32768.0).clip(-32768, 32767).astype(np.int16)
            frame = self._av.AudioFrame.from_ndarray(pcm[None], "s16", "mono")
            frame.sample_rate = SAMPLE_RATE
            frame.pts = self._n_samples
            self._n_samples += len(part)
            self._container.mux(self._stream.encode(frame))
        return len(samples)

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        with suppress(ValueError):  # it may have closed the file
            self._container.close()


def _ms(n_samples: int) -> int:
    return n_samples * 1000 // SAMPLE_RATE
