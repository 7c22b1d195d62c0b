"""A file or a pipe as a source of sound, at the pace of real time or of its reader."""

import threading
import time
from collections.abc import Iterator

import numpy as np

from voxmlx.audio.block_queue import Block, BlockQueue
from voxmlx.audio.files import AudioFile
from voxmlx.config import SAMPLE_RATE
from voxmlx.errors import AudioError
from voxmlx.events import SoundWarning

__all__ = ["FileSource"]

_BLOCK_SAMPLES = SAMPLE_RATE // 100

# Read ahead of the decoder: enough for its largest step.
_MAX_WAITING_SAMPLES = 10 * SAMPLE_RATE


class FileSource:
    """Sound read by a thread of its own, so that a pipe is heard while it is waited on.

    With `speed` the blocks of 10 ms come when they would be spoken, `speed` times
    faster than real time, and never wait for the decoder; without, they come as fast
    as they are decoded, and what a file was read ahead is no lag. Takes over the open
    `audio`. If its channels are split, samples are [n, n_channels].
    """

    def __init__(
        self, audio: AudioFile, *, speed: float | None = None, n_skipped: int = 0
    ) -> None:
        """Begin after the first `n_skipped` samples."""
        self.name = audio.name
        self.is_ended = False
        self._audio = audio
        self._speed = speed
        self._n_skipped = n_skipped
        self._is_there_whole = speed is None and not audio.is_pipe
        self._error: AudioError | None = None
        self._is_stopped = threading.Event()
        self._may_read = threading.Event()
        self._may_read.set()
        self._unread: list[Block] = []  # what a pause found in the queue
        # What is paced must not wait: a microphone would not.
        n_max = _MAX_WAITING_SAMPLES if speed is None else 1 << 62
        self._queue = BlockQueue(n_max)
        self._thread = threading.Thread(target=self._run, name="sound", daemon=True)
        self._thread.start()

    def read(self, timeout_s: float) -> list[Block]:
        """Return the blocks since the last call; wait up to `timeout_s` if there are none.

        Raises AudioError for bad sound, once all that came before it has been read.
        """
        is_last = not self._thread.is_alive()
        blocks, self._unread = self._unread, []
        if not blocks and not self._may_read.is_set():
            time.sleep(timeout_s)
            return []
        blocks = blocks or self._queue.get(0 if is_last else timeout_s)
        if not blocks and (is_last or self._is_stopped.is_set()):
            self.is_ended = True
            if self._error is not None:
                raise self._error
        if self._is_there_whole:
            now = time.monotonic()
            return [Block(block.samples, now) for block in blocks]
        return blocks

    def take_warnings(self) -> list[SoundWarning]:
        """Return what was noticed about the file since the last call."""
        return self._audio.take_warnings()

    def pause(self) -> None:
        """Read no more of the file until `resume`; what was read can still be read.

        After `stop` it does nothing: the end would wait for a `resume`.
        """
        if self._is_stopped.is_set():
            return
        self._may_read.clear()
        self._unread += self._queue.get(0)

    def resume(self) -> None:
        """Go on where `pause` has ended."""
        self._may_read.set()

    def stop(self) -> None:
        """Hear nothing more; what was heard can still be read."""
        self._is_stopped.set()
        self._may_read.set()
        self._queue.close()

    def close(self) -> None:
        self.stop()
        # A thread that waits on a pipe ends with the process.
        self._thread.join(timeout=0.1)
        if not self._thread.is_alive():
            self._audio.close()

    def _run(self) -> None:
        try:
            started = time.monotonic()
            n_played = 0
            for samples in self._pieces():
                if not self._may_read.is_set():
                    paused_at = time.monotonic()
                    self._may_read.wait()
                    started += time.monotonic() - paused_at
                if self._speed is not None:
                    n_played += len(samples)
                    due = started + n_played / SAMPLE_RATE / self._speed
                    if self._is_stopped.wait(max(0.0, due - time.monotonic())):
                        return
                if not self._queue.put(Block(samples, time.monotonic()), wait=True):
                    return
        except AudioError as error:
            self._error = error
        finally:
            self._queue.close()

    def _pieces(self) -> Iterator[np.ndarray]:
        if self._speed is None:
            yield from self._left(self._audio.pieces(0.5))
            return
        pending: np.ndarray | None = None
        for piece in self._left(self._audio.pieces()):
            pending = piece if pending is None else np.concatenate([pending, piece])
            n_whole = len(pending) // _BLOCK_SAMPLES * _BLOCK_SAMPLES
            for start in range(0, n_whole, _BLOCK_SAMPLES):
                yield pending[start : start + _BLOCK_SAMPLES]
            pending = pending[n_whole:]
        if pending is not None and len(pending):
            yield pending

    def _left(self, pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        n = self._n_skipped
        for piece in pieces:
            if n < len(piece):
                yield piece[n:]
            n = max(0, n - len(piece))
