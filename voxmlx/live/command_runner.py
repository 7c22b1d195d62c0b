"""Does what commands of another program say, between two steps of a live stream."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from voxmlx.errors import RequestError, VoxmlxError
from voxmlx.events import Event
from voxmlx.live.captions import Captions, LiveStream
from voxmlx.live.changing_stream import ChangingStream
from voxmlx.live.json_display import JsonDisplay
from voxmlx.live.stream_metrics import StreamMetrics
from voxmlx.live.worker_commands import Command, CommandReader, WrongCommand

__all__ = ["CommandRunner", "PausableSource"]


class PausableSource(Protocol):
    """A source of sound that can be silent for a while."""

    name: str

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class CommandRunner:
    """Runs commands, and answers each of them once. A listener.

    A wrong command is answered by an error, and changes nothing.
    """

    def __init__(
        self,
        reader: CommandReader,
        display: JsonDisplay,
        captions: Captions,
        source: PausableSource,
        stream: LiveStream,
    ) -> None:
        self._reader = reader
        self._display = display
        self._captions = captions
        self._source = source
        self._stream = stream
        self._is_stopping = self._is_paused = False
        # Flushes: how many samples are pushed when their words are out.
        self._flushes: deque[tuple[int, Command]] = deque()
        self._delay: Command | None = None

    def on_audio(self, samples: np.ndarray, /) -> None:
        del samples

    def on_events(self, events: Sequence[Event], /) -> None:
        del events

    def on_tick(self, metrics: StreamMetrics, /) -> None:
        del metrics
        for one in self._reader.take():
            if self._is_stopping:
                return
            if isinstance(one, WrongCommand):
                self._refuse(one.error, one)
            else:
                self._run(one)
        self._answer_what_is_done()

    def _run(self, command: Command) -> None:
        match command.name:
            case "flush":
                self._flush(command)
            case "pause":
                self._pause(command)
            case "resume":
                if self._is_paused:
                    self._is_paused = False
                    self._source.resume()
                self._answer("resumed", command, source=self._source.name)
            case "delay":
                self._change_delay(command)
            case _:
                self._is_stopping = True
                self._captions.stop()

    def _pause(self, command: Command) -> None:
        if self._is_paused:
            self._answer("paused", command)
            return
        self._is_paused = True
        self._source.pause()
        mark = self._captions.flush()
        self._answer("paused", command)
        self._flushes.append((mark, Command("flush")))

    def _flush(self, command: Command) -> None:
        self._flushes.append((self._captions.flush(), command))

    def _change_delay(self, command: Command) -> None:
        assert command.delay_ms is not None
        if not isinstance(self._stream, ChangingStream):
            error = RequestError(
                "delay is about a model on this machine, --server not; end this "
                "stream, and start one with another --delay",
                code="not_here",
            )
            self._refuse(error, command)
            return
        try:
            self._stream.change_delay(command.delay_ms)
        except VoxmlxError as error:
            self._refuse(RequestError(str(error), code="invalid_value"), command)
            return
        replaced, self._delay = self._delay, command
        if replaced is not None:
            error = RequestError("another delay was asked for", code="replaced")
            self._refuse(error, replaced)

    def _answer_what_is_done(self) -> None:
        while self._flushes and self._captions.n_pushed >= self._flushes[0][0]:
            self._answer("flushed", self._flushes.popleft()[1])
        if self._delay is None or not isinstance(self._stream, ChangingStream):
            return
        if not self._stream.is_changing:
            command, self._delay = self._delay, None
            self._answer("delay", command, delay_ms=self._stream.delay_ms)

    def _answer(self, kind: str, command: Command, **fields: Any) -> None:
        fields["time_ms"] = self._display.time_ms
        self._display.write(kind, **fields, **_id_of(command))

    def _refuse(self, error: RequestError, command: Command | WrongCommand) -> None:
        self._display.write(
            "error", code=error.code, message=str(error), **_id_of(command)
        )


def _id_of(command: Command | WrongCommand) -> dict[str, Any]:
    return {} if command.id is None else {"id": command.id}
