"""Files of a live stream, valid at every moment: text as it comes, sound as heard."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Generic, Protocol, TypeVar

import numpy as np

from voxmlx.cli.outputs import unwritable
from voxmlx.errors import OutputError
from voxmlx.events import Event
from voxmlx.live.recorded import (
    HEADER_BYTES,
    RecordedSound,
    to_pcm16,
    wav_header,
)
from voxmlx.live.stream_metrics import StreamMetrics

__all__ = ["CaptionFile", "Recording", "create_file", "refuse_existing"]

_SYNC_EVERY_S = 1.0

E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)


class _Writer(Protocol[E_contra]):
    """A Writer of one stream, or a SplitWriter of several."""

    def feed(self, event: E_contra, /) -> str: ...
    def end(self) -> str: ...


class CaptionFile(Generic[E]):
    """Appends what its format makes of the events, and flushes at once.

    A listener, of one stream or of several. Killed at any moment, the file holds every
    caption that was final.
    """

    def __init__(
        self, path: Path, writer: _Writer[E], *, is_resumed: bool = False
    ) -> None:
        """Create the file. Raises OutputError if it is there or cannot be made.

        One that `is_resumed` may be there: the same text is written over what it
        holds, so that it stays whole, until `cut` removes the rest.
        """
        self._path = path
        self._writer = writer
        self._file = _open_again(path) if is_resumed else create_file(path)
        # Whether nothing of an earlier run stands behind what has been written.
        self._is_cut = not is_resumed

    def cut(self) -> None:
        """Remove what the file holds beyond what has been written."""
        try:
            self._file.truncate()
        except OSError as error:
            raise unwritable(self._path, error) from None
        self._is_cut = True

    def on_audio(self, *heard: object) -> None:
        del heard

    def on_events(self, events: Sequence[E], /) -> None:
        self._append("".join(self._writer.feed(event) for event in events))

    def on_tick(self, metrics: object, /) -> None:
        del metrics

    def close(self) -> None:
        """Write what the format still owes, as when a stream was broken off.

        A file that is not `cut` yet owes nothing: it holds all of the earlier run.
        """
        try:
            if self._is_cut:
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
            raise unwritable(self._path, error) from None


class Recording:
    """A 16-bit WAV of what was heard; its header says each second how much there is.

    A listener. Samples beyond full scale are clipped.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_channels: int = 1,
        resumed: RecordedSound | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the file. Raises OutputError if it is there or cannot be made.

        With `resumed`, the file's own sound, go on after it.
        """
        self._path = path
        self._n_channels = n_channels
        self._clock = clock
        self._file = create_file(path) if resumed is None else _open_again(path)
        self._n_bytes = 2 * resumed.n_samples if resumed is not None else 0
        try:
            self._file.truncate(HEADER_BYTES + self._n_bytes)
        except OSError as error:
            raise unwritable(path, error) from None
        self._sync()

    def on_audio(self, samples: np.ndarray, /) -> None:
        """Write samples [n], or [n, n_channels]."""
        pcm = to_pcm16(samples).tobytes()
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
            self._file.write(wav_header(self._n_bytes, self._n_channels))
            self._file.seek(0, 2)
            self._file.flush()
            os.fsync(self._file.fileno())  # a power cut loses a second at most
        except OSError as error:
            raise unwritable(self._path, error) from None
        self._synced_at = self._clock()

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise unwritable(self._path, error) from None


def _open_again(path: Path) -> BinaryIO:
    try:
        return open(path, "r+b")
    except FileNotFoundError:
        return create_file(path)
    except OSError as error:
        raise unwritable(path, error) from None


def refuse_existing(paths: Iterable[Path | None]) -> None:
    """Raise OutputError for a path that is there; creating it would ask once more."""
    for path in paths:
        if path is not None and path.exists():
            raise _existing(path)


def create_file(path: Path) -> BinaryIO:
    """Create a file. Raises OutputError where there is one, or it cannot be written."""
    try:
        return open(path, "xb")
    except FileExistsError:
        raise _existing(path) from None
    except OSError as error:
        raise unwritable(path, error) from None


def _close(file: BinaryIO, path: Path) -> None:
    try:
        file.close()  # which tries once more to write what could not be written
    except OSError as error:
        raise unwritable(path, error) from None


def _existing(path: Path) -> OutputError:
    return OutputError(f"{path} exists and would be overwritten; choose another name")
