"""Any sound file, pipe or file object -> 16 kHz mono pieces."""

import math
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np

from voxmlx.audio.byte_source import (
    STANDARD_INPUT,
    ByteSource,
    ReadableFile,
    open_source,
)
from voxmlx.audio.channels import FileChannel
from voxmlx.audio.reading import Reading
from voxmlx.config import SAMPLE_RATE
from voxmlx.errors import AudioError
from voxmlx.events import SoundWarning

__all__ = ["STANDARD_INPUT", "AudioFile", "no_words", "open_audio"]

# Read ahead of whoever takes the pieces.
_MAX_AHEAD_SAMPLES = 10 * SAMPLE_RATE

# How long a close waits for a read that is under way. One of a pipe may take for ever.
_CLOSE_S = 0.5


class AudioFile:
    """Sound that is open and whose header is read: 16 kHz mono, once through.

    A thread of its own reads it, and alone opens, reads and closes: so `close` may be
    called from any thread at any time. `duration_s` is what the header says, None if
    it does not. `is_pipe` means that it cannot be opened a second time. A context
    manager.
    """

    def __init__(
        self,
        source: ByteSource,
        raw_rate: int | None,
        channel: FileChannel = None,
        track: int | None = None,
    ) -> None:
        """Made by `open_audio`; takes over the source."""
        self.name = source.name
        self.is_pipe = source.is_pipe
        self.duration_s: float | None = None
        self.n_channels = 0
        self._source = source
        self._raw_rate = raw_rate
        self._channel: FileChannel = channel
        self._track = track
        self._changed = threading.Condition()
        self._waiting: deque[np.ndarray] = deque()
        self._n_waiting = 0
        self._warnings: list[SoundWarning] = []
        self._error: BaseException | None = None
        self._is_open = self._is_read = self._is_over = self._is_closed = False
        # FFmpeg calls back into Python, where a KeyboardInterrupt would be lost. Only
        # the main thread gets that.
        self._thread = threading.Thread(target=self._run, name="sound", daemon=True)
        self._thread.start()
        with self._changed:
            while not self._is_open and not self._is_over:
                self._changed.wait()
        self._raise_error()

    def pieces(self, piece_s: float = 5.0) -> Iterator[np.ndarray]:
        """Yield float32 [n] at 16 kHz, about `piece_s` seconds at a time or less.

        Channels are averaged, unless one was asked for. With "split" a piece is
        [n, n_channels]. 16-bit samples at 16 kHz come out as integers over
        32768, exactly; the samples never depend on `piece_s`. A pipe is not waited on
        for more than it holds. Raises AudioError for NaN, infinite or absurdly large
        samples, and for no samples at all, when it is met.
        """
        assert not self._is_read, "an AudioFile is read once; open it again"
        self._is_read = True
        n_wanted = max(1, round(piece_s * SAMPLE_RATE))
        while (piece := self._take(n_wanted)) is not None:
            yield piece
        self._raise_error()

    def take_warnings(self) -> list[SoundWarning]:
        """Return what was noticed since the last call, in order."""
        with self._changed:
            warnings, self._warnings = self._warnings, []
            return warnings

    def close(self) -> None:
        """Read nothing more. From any thread, any number of times."""
        with self._changed:
            self._is_closed = self._source.is_stopped = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, n_wanted: int) -> np.ndarray | None:
        """Return the next samples, up to `n_wanted`; None at the end."""
        n_least = 1 if self.is_pipe else min(n_wanted, _MAX_AHEAD_SAMPLES // 2)
        with self._changed:
            while self._n_waiting < n_least and not (self._is_over or self._is_closed):
                self._changed.wait()
            if not self._waiting or self._is_closed:
                return None
            parts: list[np.ndarray] = []
            n_taken = 0
            while self._waiting and n_taken < n_wanted:
                part = self._waiting.popleft()
                n_left = n_wanted - n_taken
                if len(part) > n_left:
                    self._waiting.appendleft(part[n_left:])
                    part = part[:n_left]
                parts.append(part)
                n_taken += len(part)
            self._n_waiting -= n_taken
            self._changed.notify_all()
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    # ---- On the thread.

    def _run(self) -> None:
        try:
            self._read()
        except OSError as error:
            self._error = AudioError(
                f"{self.name} cannot be read: {error.strerror or error}"
            )
        except BaseException as error:
            self._error = error
        finally:
            self._source.close()
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _read(self) -> None:
        reading = Reading(self._source, self._raw_rate, self._channel, self._track)
        try:
            length_s = reading.length_s
            self.duration_s = None if length_s is None else float(length_s)
            self.n_channels = reading.n_channels
            with self._changed:
                self._is_open = True
                self._changed.notify_all()
            for item in reading.pieces():
                if not self._put(item):
                    return
        finally:
            reading.close()

    def _put(self, item: np.ndarray | SoundWarning) -> bool:
        """Hand over; False once nobody wants more."""
        with self._changed:
            if isinstance(item, SoundWarning):
                self._warnings.append(item)
                return not self._is_closed
            while self._n_waiting > _MAX_AHEAD_SAMPLES and not self._is_closed:
                self._changed.wait()
            self._waiting.append(item)
            self._n_waiting += len(item)
            self._changed.notify_all()
            return not self._is_closed


def open_audio(
    path: str | Path | ReadableFile,
    *,
    raw_rate: int | None = None,
    name: str | None = None,
    channel: FileChannel = None,
    track: int | None = None,
) -> AudioFile:
    """Open a sound or film file, a named pipe, "-" for standard input, or a file object.

    Any container and codec that FFmpeg knows, any rate and any channels. `raw_rate`
    says that bytes without a header are 16-bit little-endian mono samples at that rate
    in Hz; without it they are refused. Errors and warnings speak of `name`. `channel`
    is one channel, from 1, "mix" for the mean of all, or "split". With None it is the mean too,
    but where channels cancel each other, one of them is heard. `track` is the sound
    track of a film, from 1; None is the one that players take. Whoever opened a file
    object closes it, after the AudioFile. Raises AudioError for what is missing,
    unreadable, empty or no sound, and for a channel that is not there.
    """
    return AudioFile(open_source(path, name), raw_rate, channel, track)


def no_words(name: str, peak: float, duration_ms: int) -> SoundWarning:
    """Return the warning that nobody was heard speaking; `peak` is of full scale."""
    level = f"peak of {20 * math.log10(peak):.0f} dB" if peak > 0 else "digital silence"
    return SoundWarning(
        "no_words",
        f"no words were heard in the {duration_ms / 1000:.1f} s of {name} ({level})",
        duration_ms,
    )
