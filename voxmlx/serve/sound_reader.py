"""One thread that owns an uploaded sound file: it writes, decodes and closes it."""

import asyncio
import io
import logging
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from voxmlx.audio.channels import Channel
from voxmlx.audio.files import AudioFile, open_audio
from voxmlx.errors import AudioError, RequestError
from voxmlx.events import SoundWarning
from voxmlx.serve.os_errors import as_request_error

__all__ = ["SoundReader"]

_log = logging.getLogger("voxmlx.serve")

# How often to look whether there is room for more sound.
_LOOK_S = 0.02
_PIECE_S = 2.0


class SoundReader:
    """A file on its way from a request to a stream, on a thread of its own.

    Only that thread touches the file, from its opening to its close. A decoder that is
    closed under a thread that still reads it ends the process. `stop` therefore only
    asks; the thread closes the file when what it does is over.

    The file has no name in any directory, so nothing is left of it, however the process
    ends. It is written once, and decoded where it is.
    """

    def __init__(
        self,
        *,
        has_room: Callable[[], bool],
        hear: Callable[[np.ndarray], None],
        warn: Callable[[SoundWarning], None],
        end: Callable[[RequestError | None], None],
    ) -> None:
        """All four callbacks run on the reader's thread.

        `hear` takes float32 [n] at 16 kHz, `warn` what was wrong with the sound. `end`
        is called once unless the reader was stopped: with None after the last sound,
        or with the reason why there is no more of it.
        """
        self._has_room = has_room
        self._hear = hear
        self._warn = warn
        self._end = end
        self._file: io.FileIO | None = None
        self._is_stopped = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = ThreadPoolExecutor(1, "voxmlx-file")

    async def write(self, content: bytes) -> None:
        """Add to the file. Raises OSError where there is no room for it."""
        await self._loop.run_in_executor(self._thread, self._write, content)

    async def open(self, name: str, channel: Channel = None) -> None:
        """Begin to decode; returns when the header is read. Raises RequestError.

        `name` is what messages call the file, `channel` that of `open_audio`.
        """
        self._thread.submit(self._run, name, channel)
        await self._opened

    def stop(self) -> None:
        """Ask for the end; whoever is late to hear of it gets nothing more."""
        if self._is_stopped.is_set():
            return
        self._is_stopped.set()
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    def _write(self, content: bytes) -> None:
        if self._file is None:
            # Unbuffered: a full disk is told of by the write, and not by the close.
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 -- _close
            assert isinstance(file, io.FileIO), (
                "a temporary file of this system has a name"
            )
            self._file = file
        rest = memoryview(content)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _run(self, name: str, channel: Channel) -> None:
        error: RequestError | None = None
        try:
            self._read(name, channel)
        except AudioError as caught:
            error = RequestError(str(caught), code="invalid_audio", param="file")
        except OSError as caught:
            error = as_request_error(caught)
        except RequestError as caught:
            error = caught
        except Exception:  # a mistake of ours: whoever waits must be told all the same
            _log.exception("reading %s failed", name)
            error = RequestError(
                "reading the file failed", code="server_error", status=500
            )
        self._tell_opened(error)
        if not self._is_stopped.is_set():
            self._end(error)

    def _read(self, name: str, channel: Channel) -> None:
        assert self._file is not None
        self._file.seek(0)
        with (
            io.BufferedReader(self._file) as file,
            open_audio(file, name=name, channel=channel) as audio,
        ):
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
