"""Does what commands of another program say, between two steps of a live stream."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from voxmlx.errors import RequestError, VoxmlxError
from voxmlx.events import ChannelEvent, Event, Finished
from voxmlx.live.changing_stream import ChangingStream
from voxmlx.live.json_display import JsonOutput
from voxmlx.live.worker_commands import Command, CommandReader, WrongCommand
from voxmlx.text.split_writers import SplitEvent

__all__ = ["CommandRunner", "Flushable", "PausableSource", "names_of"]


class PausableSource(Protocol):
    """A source of sound that can be silent for a while."""

    @property
    def name(self) -> str: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Flushable(Protocol):
    """The loop of a live stream, or of several, as far as commands need it."""

    def flush(self, pause_ms: int = 0, /) -> Callable[[], bool]: ...
    def stop(self) -> None: ...


class CommandRunner:
    """Runs commands, and answers each of them once. A listener of any loop.

    A wrong command is answered by an error, and changes nothing.
    """

    def __init__(
        self,
        reader: CommandReader,
        display: JsonOutput,
        captions: Flushable,
        sources: Sequence[PausableSource],
        stream: ChangingStream | None,
        *,
        pause_ms: int,
    ) -> None:
        """`stream` is the one whose delay may change, if there is one.

        Silence of `pause_ms` ends an utterance.
        """
        self._reader = reader
        self._display = display
        self._captions = captions
        self._sources = sources
        self._pause_ms = pause_ms
        self._stream = stream
        self._is_stopping = self._is_paused = self._is_over = False
        # Flushes, each with what says whether its words are out.
        self._flushes: deque[tuple[Callable[[], bool], Command]] = deque()
        self._delay: Command | None = None

    def on_audio(self, *heard: object) -> None:
        del heard

    def on_events(self, events: Sequence[SplitEvent | Event], /) -> None:
        """Note the end of the stream: nothing is answered after it."""
        for event in events:
            own = event.event if isinstance(event, ChannelEvent) else event
            self._is_over = self._is_over or isinstance(own, Finished)

    def on_tick(self, metrics: object, /) -> None:
        del metrics
        if self._is_over:
            return
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
                    for source in self._sources:
                        source.resume()
                self._answer("resumed", command, source=names_of(self._sources))
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
        for source in self._sources:
            source.pause()
        is_out = self._captions.flush(self._pause_ms)
        self._answer("paused", command)
        self._flushes.append((is_out, Command("flush")))

    def _flush(self, command: Command) -> None:
        self._flushes.append((self._captions.flush(), command))

    def _change_delay(self, command: Command) -> None:
        assert command.delay_ms is not None
        if self._stream is None:
            error = RequestError(
                "the delay of a --server, or of several sources, cannot change; end "
                "this stream, and start one with another --delay",
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
        while self._flushes and self._flushes[0][0]():
            self._answer("flushed", self._flushes.popleft()[1])
        if self._delay is None or self._stream is None:
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


def names_of(sources: Sequence[PausableSource]) -> str:
    """Return the names of all sources, as the first line has them."""
    return ", ".join(dict.fromkeys(source.name for source in sources))


def _id_of(command: Command | WrongCommand) -> dict[str, Any]:
    return {} if command.id is None else {"id": command.id}
