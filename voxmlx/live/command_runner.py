"""Does what commands of another program say, between two steps of a live stream."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from voxmlx.errors import RequestError, VoxmlxError
from voxmlx.live.changing_stream import ChangingStream
from voxmlx.live.json_display import JsonOutput
from voxmlx.live.worker_commands import (
    MAX_WAITING,
    Command,
    CommandReader,
    WrongCommand,
)

__all__ = ["CommandRunner", "Flushable", "PausableSource", "names_of"]


class PausableSource(Protocol):
    """A source of sound that can be silent for a while."""

    @property
    def name(self) -> str: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Flushable(Protocol):
    """The loop of a live stream, or of several, as far as commands need it."""

    is_stopping: bool

    def flush(self, pause_ms: int = 0, /) -> Callable[[], bool]: ...
    def stop(self) -> None: ...


class CommandRunner:
    """Runs commands, and answers each of them once. A listener of any loop.

    It comes behind the display, which knows when the stream is over.

    A wrong command is answered by an error, and changes nothing. One flush is on its way
    at a time: those that come meanwhile wait, and are then one flush together. A delay
    waits until no flush is on its way. A flush behind a delay that waits is as long as
    that delay needs. So a flush is answered after all words before it.
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
        self._is_paused = False
        self._taken: deque[Command | WrongCommand] = deque()
        # What says whether the words of the flush on its way are out, and whose it is.
        self._is_out: Callable[[], bool] | None = None
        self._flushing: list[Command] = []
        # Flushes that wait for it, and the longest silence that one of them wants.
        self._waiting: list[Command] = []
        self._waiting_pause_ms = 0
        self._delay: Command | None = None
        # A delay that waits for all flushes before it.
        self._held: Command | None = None

    def on_audio(self, *heard: object) -> None:
        del heard

    def on_events(self, *told: object) -> None:
        del told

    def on_tick(self, metrics: object, /) -> None:
        del metrics
        if self._display.is_over:
            return
        self._answer_what_is_done()
        if not self._taken and not self._captions.is_stopping:
            self._taken.extend(self._reader.take())
        while self._may_run_next():
            one = self._taken.popleft()
            if isinstance(one, WrongCommand):
                self._refuse(one.error, one)
            else:
                self._run(one)
        if self._captions.is_stopping:
            self._refuse_what_waits()
        self._answer_what_is_done()

    def _may_run_next(self) -> bool:
        """Return whether there is a command, and nothing it must wait for."""
        if not self._taken or self._captions.is_stopping:
            return False
        if len(self._waiting) >= MAX_WAITING:
            return False
        if isinstance(one := self._taken[0], Command) and one.name == "resume":
            # The silence of a pause comes before what is heard after it.
            return not self._waiting
        return True

    def _run(self, command: Command) -> None:
        match command.name:
            case "flush":
                self._flush(command, 0)
            case "pause":
                self._pause(command)
            case "resume":
                if self._is_paused:
                    self._is_paused = False
                    for source in self._sources:
                        source.resume()
                self._answer("resumed", command, source=names_of(self._sources))
            case "delay" if self._is_out is None:
                self._change_delay(command)
            case "delay":
                # Another session hears again what is on its way, and is later.
                self._replace(self._held)
                self._held = command
            case _:
                self._captions.stop()

    def _pause(self, command: Command) -> None:
        if self._is_paused:
            self._answer("paused", command)
            return
        self._is_paused = True
        for source in self._sources:
            source.pause()
        self._flush(Command("flush"), self._pause_ms)
        self._answer("paused", command)

    def _flush(self, command: Command, pause_ms: int) -> None:
        self._waiting.append(command)
        self._waiting_pause_ms = max(self._waiting_pause_ms, pause_ms)
        if self._is_out is None:
            self._begin_flush()

    def _begin_flush(self) -> None:
        """Have all flushes that wait on their way, as one."""
        pause_ms = self._waiting_pause_ms
        if self._delay is not None and self._stream is not None:
            assert self._delay.delay_ms is not None
            # The session of that delay may take over before the silence is over.
            pause_ms += max(0, self._delay.delay_ms - self._stream.delay_ms)
        self._is_out = self._captions.flush(pause_ms)
        self._flushing, self._waiting = self._waiting, []
        self._waiting_pause_ms = 0

    def _refuse_what_waits(self) -> None:
        """Begin no other flush: the end brings out all words."""
        error = RequestError(
            "the stream ends, and its last words come before finished", code="stopped"
        )
        waiting, self._waiting = self._waiting, []
        if self._held is not None:
            waiting.append(self._held)
            self._held = None
        for command in waiting:
            self._refuse(error, command)

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
        self._replace(self._delay)
        self._delay = command

    def _replace(self, delay: Command | None) -> None:
        """Tell that another delay has come, if one waits."""
        if delay is not None:
            error = RequestError("another delay was asked for", code="replaced")
            self._refuse(error, delay)

    def _answer_what_is_done(self) -> None:
        while self._is_out is not None and self._is_out():
            self._is_out = None
            for command in self._flushing:
                self._answer("flushed", command)
            if self._held is not None and not self._captions.is_stopping:
                held, self._held = self._held, None
                self._change_delay(held)
            if self._waiting and not self._captions.is_stopping:
                self._begin_flush()
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
