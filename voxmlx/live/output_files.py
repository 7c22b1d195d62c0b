"""Files of a live stream, valid at every moment: text as it comes, sound as heard."""

import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from voxmlx.config import SAMPLE_RATE
from voxmlx.errors import OutputError
from voxmlx.events import Event
from voxmlx.live.stream_metrics import StreamMetrics
from voxmlx.text.formats import Writer

__all__ = ["CaptionFile", "Recording"]

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_RIFF_EXTRA = _HEADER.size - 8
_MAX_BYTES = 0xFFFFFFFF - _RIFF_EXTRA  # 37 hours; readers then take all there is
_BYTES_PER_SAMPLE = 2
_SYNC_EVERY_S = 1.0


class CaptionFile:
    """Appends what its format makes of the events, and flushes at once.

    A listener. Killed at any moment, the file holds every caption that was final.
    """

    def __init__(self, path: Path, writer: Writer) -> None:
        """Create the file. Raises OutputError if it is there or cannot be made."""
        self._path = path
        self._writer = writer
        self._file = _create(path)

    def on_audio(self, samples: np.ndarray, /) -> None:
        del samples

    def on_events(self, events: Sequence[Event], /) -> None:
        self._append("".join(self._writer.feed(event) for event in events))

    def on_tick(self, metrics: StreamMetrics, /) -> None:
        del metrics

    def close(self) -> None:
        """Write what the format still owes, as when a stream was broken off."""
        try:
            self._append(self._writer.end())
        finally:
            _close(self._file, self._path)

    def _append(self, text: str) -> None:
        if not text:
            return
        try:
            self._file.write(text.encode("utf-8"))
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._path, error) from None


class Recording:
    """A 16-bit WAV of what was heard; its header says each second how much there is.

    A listener. Samples beyond full scale are clipped.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the file. Raises OutputError if it is there or cannot be made."""
        self._path = path
        self._clock = clock
        self._file = _create(path)
        self._n_bytes = 0
        self._synced_at = clock()
        self._write(_header(0))

    def on_audio(self, samples: np.ndarray, /) -> None:
        scaled = np.clip(np.rint(samples * 32768.0), -32768, 32767)
        pcm = scaled.astype("<i2").tobytes()
        self._write(pcm)
        self._n_bytes += len(pcm)
        if self._clock() - self._synced_at > _SYNC_EVERY_S:
            self._sync()

    def on_events(self, events: Sequence[Event], /) -> None:
        del events

    def on_tick(self, metrics: StreamMetrics, /) -> None:
        del metrics

    def close(self) -> None:
        try:
            self._sync()
        finally:
            _close(self._file, self._path)

    def _sync(self) -> None:
        try:
            self._file.flush()
            self._file.seek(0)
            self._file.write(_header(self._n_bytes))
            self._file.seek(0, 2)
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._path, error) from None
        self._synced_at = self._clock()

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise _unwritable(self._path, error) from None


def _header(n_bytes: int) -> bytes:
    n_bytes = min(n_bytes, _MAX_BYTES)
    rate = SAMPLE_RATE
    return _HEADER.pack(
        *(b"RIFF", n_bytes + _RIFF_EXTRA, b"WAVE"),
        *(b"fmt ", 16, 1, 1, rate, rate * _BYTES_PER_SAMPLE, _BYTES_PER_SAMPLE, 16),
        *(b"data", n_bytes),
    )


def _create(path: Path) -> BinaryIO:
    try:
        return open(path, "xb")
    except FileExistsError:
        raise OutputError(
            f"{path} exists and would be overwritten; choose another name"
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from None


def _close(file: BinaryIO, path: Path) -> None:
    try:
        file.close()  # which tries once more to write what could not be written
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written: {error.strerror or error}")
