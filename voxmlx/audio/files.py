"""A sound file or pipe, of any format and rate -> 16 kHz mono pieces."""

import io
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from voxmlx.audio.resample import Resampler, check_rate
from voxmlx.audio.sndfile import SndfileStream
from voxmlx.audio.wav_header import WAV_HEAD_BYTES, is_wav, read_up_to, read_wav_header
from voxmlx.audio.wav_stream import (
    PcmStream,
    is_plain_pcm,
    raw_stream,
    refuse_cut_file,
)
from voxmlx.config import SAMPLE_RATE
from voxmlx.errors import AudioError

__all__ = ["STANDARD_INPUT", "AudioFile", "open_audio"]

STANDARD_INPUT = "-"

# 4 MB of float32: what bounds a piece where channels are many.
_MAX_BLOCK_VALUES = 1 << 20

# How sound that is neither WAV nor headerless begins.
_CONTAINERS = {
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"FORM": "AIFF",
    b"caff": "CAF",
    b".snd": "AU",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"RIFX": "big-endian WAV",
}


class _SoundStream(Protocol):
    """Samples of any rate and number of channels, from start to end."""

    rate: int
    n_channels: int
    n_samples: int | None

    def blocks(self, max_samples: int) -> Iterator[np.ndarray]: ...
    def close(self) -> None: ...


class AudioFile:
    """Sound that is open and whose header is read: 16 kHz mono, once through.

    `duration_s` is what the header says, None if it does not. `is_pipe` means
    that it cannot be opened a second time. A context manager.
    """

    def __init__(
        self, stream: _SoundStream, name: str, file: io.BufferedReader, *, is_pipe: bool
    ) -> None:
        """Made by `open_audio`; takes over the open `file`."""
        self.name = name
        self.is_pipe = is_pipe
        self.duration_s = None
        if stream.n_samples is not None:
            self.duration_s = stream.n_samples / stream.rate
        self._stream = stream
        self._file = file
        self._is_read = False

    def pieces(self, piece_s: float = 5.0) -> Iterator[np.ndarray]:
        """Yield float32 [n] at 16 kHz, about `piece_s` seconds at a time or less.

        Channels are averaged. 16-bit samples at 16 kHz come out as integers over
        32768, exactly; the samples never depend on `piece_s`. Raises AudioError
        for NaN or infinite samples, for no samples at all, for damage, and for
        less sound than the header promised, when it is met.
        """
        assert not self._is_read, "an AudioFile is read once; open it again"
        self._is_read = True
        rate = self._stream.rate
        resampler = Resampler(rate)
        max_samples = min(
            round(piece_s * rate), _MAX_BLOCK_VALUES // self._stream.n_channels
        )
        n_read = 0
        try:
            for block in self._stream.blocks(max(1, max_samples)):
                mono = _mono(block)
                self._refuse_not_finite(mono, n_read)
                n_read += len(mono)
                if len(piece := resampler.push(mono)) > 0:
                    yield piece
        except OSError as error:
            raise _unreadable(self.name, error) from None
        if n_read == 0:
            raise _no_sound(self.name)
        if len(piece := resampler.flush()) > 0:
            yield piece

    def close(self) -> None:
        self._stream.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _refuse_not_finite(self, mono: np.ndarray, n_before: int) -> None:
        finite = np.isfinite(mono)
        if not finite.all():
            at_s = (n_before + int(np.argmin(finite))) / self._stream.rate
            raise AudioError(
                f"{self.name} has a NaN or infinite sample at {at_s:.3f} s, expected "
                "finite ones; write it again as 16-bit PCM"
            )


def open_audio(path: str | Path, *, headerless_rate: int = SAMPLE_RATE) -> AudioFile:
    """Open a sound file, a named pipe, or with "-" standard input.

    Files may have any format libsndfile reads, any rate and any channels. Pipes
    carry WAV, or headerless 16-bit little-endian mono sound at `headerless_rate` Hz.
    Raises AudioError for what is missing, unreadable, empty, no sound, or shorter
    than its header says.
    """
    if str(path) == STANDARD_INPUT:
        name, file, is_pipe = "standard input", _standard_input(), True
    else:
        name, file, is_pipe = str(path), _open(path), False
    try:
        status = os.fstat(file.fileno())
        is_pipe = is_pipe or not stat.S_ISREG(status.st_mode)
        stream = (
            _pipe_stream(file, name, headerless_rate)
            if is_pipe
            else _file_stream(file, name, status.st_size)
        )
        try:
            check_rate(stream.rate, name)
            if stream.n_samples == 0:
                raise _no_sound(name)
        except AudioError:
            stream.close()
            raise
    except OSError as error:
        file.close()
        raise _unreadable(name, error) from None
    except AudioError:
        file.close()
        raise
    return AudioFile(stream, name, file, is_pipe=is_pipe)


def _open(path: str | Path) -> io.BufferedReader:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise AudioError(f"{path} does not exist; check its path") from None
    except IsADirectoryError:
        raise AudioError(f"{path} is a directory; name the files in it") from None
    except PermissionError:
        raise AudioError(f"{path} may not be read; check its permissions") from None
    except OSError as error:
        raise _unreadable(str(path), error) from None


def _standard_input() -> io.BufferedReader:
    if sys.stdin is None:
        raise AudioError("standard input is closed; pipe sound into it or name a file")
    if sys.stdin.isatty():
        raise AudioError(
            "standard input is a terminal, expected sound; pipe it in, as in "
            "ffmpeg -i FILE -f wav - | voxmlx transcribe -"
        )
    # A second view of the descriptor, so that closing it leaves sys.stdin open.
    return open(sys.stdin.fileno(), "rb", closefd=False)


def _file_stream(file: io.BufferedReader, name: str, n_file_bytes: int) -> _SoundStream:
    if n_file_bytes == 0:
        raise AudioError(f"{name} is empty (0 bytes), expected sound")
    file.seek(0)  # /dev/stdin shares its position with who read it before, on macOS
    head = read_up_to(file, WAV_HEAD_BYTES)
    if is_wav(head):
        header = read_wav_header(file, head, name)
        if is_plain_pcm(header):
            refuse_cut_file(header, n_file_bytes, name)
            return PcmStream(file, header, name)
    return SndfileStream(file, name)


def _pipe_stream(
    pipe: io.BufferedReader, name: str, headerless_rate: int
) -> _SoundStream:
    head = read_up_to(pipe, WAV_HEAD_BYTES)
    if not head:
        raise AudioError(f"{name} is empty (0 bytes), expected sound")
    if not is_wav(head):
        for start, container in _CONTAINERS.items():
            if head.startswith(start):
                raise AudioError(
                    f"{name} carries {container}, but a pipe must carry WAV or "
                    "headerless mono s16le sound; name the file itself, or "
                    "convert it with ffmpeg -i FILE -f wav -"
                )
        return raw_stream(pipe, head, name, headerless_rate)
    header = read_wav_header(pipe, head, name)
    if not is_plain_pcm(header):
        raise AudioError(
            f"{name} is a WAV of encoding {header.encoding} with "
            f"{header.bytes_per_sample} bytes a sample, but in a pipe it must be PCM "
            "or float; convert it with ffmpeg -i FILE -f wav -"
        )
    return PcmStream(pipe, header, name)


def _mono(block: np.ndarray) -> np.ndarray:
    """[n, channels] -> [n]; not finite wherever one of the channels is not."""
    if block.shape[1] == 1:
        return block[:, 0]
    with np.errstate(over="ignore", invalid="ignore"):
        return block.mean(axis=1, dtype=np.float32)


def _no_sound(name: str) -> AudioError:
    return AudioError(f"{name} holds no sound: it has a header, but not one sample")


def _unreadable(name: str, error: OSError) -> AudioError:
    return AudioError(f"{name} cannot be read: {error.strerror or error}")
