"""One thread that owns an uploaded sound file: it decodes it and closes it."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import BinaryIO

import numpy as np

from voxmlx.audio.files import AudioFile, open_audio
from voxmlx.errors import AudioError, RequestError
from voxmlx.events import SoundWarning

__all__ = ["SoundReader"]

_log = logging.getLogger("voxmlx.serve")

# How often to look whether there is room for more sound.
_LOOK_S = 0.02
_PIECE_S = 2.0


class SoundReader:
    """A file's sound, decoded ahead of the network on a thread of its own.

    Only that thread touches the file, from its opening to its close. A decoder that is
    closed under a thread that still reads it ends the process. `stop` therefore only
    asks; the thread closes the file when its present read is over.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        *,
        has_room: Callable[[], bool],
        hear: Callable[[np.ndarray], None],
        warn: Callable[[SoundWarning], None],
        end: Callable[[RequestError | None], None],
    ) -> None:
        """Take over `file`, which can seek.

        All four callbacks run on the reader's thread. `hear` takes float32 [n] at
        16 kHz, `warn` what was wrong with the sound. `end` is called once unless the reader was stopped: with None after the
        last sound, or with the reason why there is no more of it.
        """
        self._file = file
        self._name = name
        self._has_room = has_room
        self._hear = hear
        self._warn = warn
        self._end = end
        self._is_stopped = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="voxmlx-file")

    async def open(self) -> None:
        """Begin; returns when the header is read. Raises RequestError."""
        try:
            self._thread.start()
        except RuntimeError:  # the system has no thread to give; nobody reads the file
            self._file.close()
            raise RequestError(
                "the server is too busy to read a file; try again later",
                code="unavailable",
                status=503,
            ) from None
        await self._opened

    def stop(self) -> None:
        """Ask for the end; whoever is late to hear of it gets nothing more."""
        self._is_stopped.set()

    def _run(self) -> None:
        error: RequestError | None = None
        try:
            self._read()
        except AudioError as caught:
            error = RequestError(str(caught), code="invalid_audio", param="file")
        except RequestError as caught:
            error = caught
        except Exception:  # a mistake of ours: whoever waits must be told all the same
            _log.exception("reading %s failed", self._name)
            error = RequestError(
                "reading the file failed", code="server_error", status=500
            )
        self._tell_opened(error)
        if not self._is_stopped.is_set():
            self._end(error)

    def _read(self) -> None:
        with closing(self._file) as file:
            file.seek(0)
            with open_audio(file, name=self._name) as audio:
                self._tell_opened(None)
                for piece in audio.pieces(_PIECE_S):
                    if self._is_stopped.is_set():
                        return
                    self._hear(piece)
                    self._pass_warnings(audio)
                    while not self._has_room():
                        if self._is_stopped.wait(_LOOK_S):
                            return
                self._pass_warnings(audio)

    def _pass_warnings(self, audio: AudioFile) -> None:
        for warning in audio.take_warnings():
            self._warn(warning)

    def _tell_opened(self, error: RequestError | None) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._set_opened, error)

    def _set_opened(self, error: RequestError | None) -> None:
        if self._opened.done():
            return
        if error is None:
            self._opened.set_result(None)
        else:
            self._opened.set_exception(error)
