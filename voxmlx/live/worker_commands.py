"""Commands of another program on standard input: JSON lines, or plain words."""

import json
import os
import queue
import select
import stat
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from voxmlx.cli.json_fields import fields_of
from voxmlx.errors import RequestError

__all__ = [
    "COMMAND_NAMES",
    "MAX_WAITING",
    "Command",
    "CommandReader",
    "WrongCommand",
    "is_pipe",
    "read_command",
]

COMMAND_NAMES = ("flush", "pause", "resume", "delay", "stop")

_MAX_LINE_BYTES = 1 << 16
_MAX_ID_CHARS = 256
_READ_BYTES = 1 << 12

MAX_WAITING = 64
"""Commands that wait for the loop; whoever sends more waits for room in the pipe."""

_ROOM_S = 0.1

CommandId = str | int | None


@dataclass(frozen=True, slots=True)
class Command:
    """One command; `delay_ms` belongs to delay, and an answer repeats `id`."""

    name: str
    delay_ms: int | None = None
    id: CommandId = None


@dataclass(frozen=True, slots=True)
class WrongCommand:
    """A line that is no command, and the reason."""

    error: RequestError
    id: CommandId = None


def read_command(line: bytes) -> Command | WrongCommand | None:
    """Return what a line says; None for an empty one."""
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError:
        return _wrong("a line is not UTF-8, expected a command")
    if not text:
        return None
    if text.startswith("{"):
        return _from_json(text)
    name, *values = text.split()
    if name not in COMMAND_NAMES:
        return _wrong(f"{name[:80]!r} is no command; {_EXPECTED}")
    if name != "delay":
        return _wrong(f"{name} has no value") if values else Command(name)
    number = values[0] if len(values) == 1 else ""
    if not (number.isascii() and number.isdecimal() and len(number) < 9):
        return _wrong(f"{text[:80]!r} names no delay; expected one as in delay 960")
    return Command(name, int(number))


_EXPECTED = f"expected one of {', '.join(COMMAND_NAMES)}"


def _from_json(text: str) -> Command | WrongCommand:
    try:
        fields = fields_of(json.loads(text))
    except (ValueError, RecursionError):
        return _wrong(f"{text[:80]!r} is not JSON; {_EXPECTED}")
    given_id = fields.get("id")
    is_id = given_id is None or isinstance(given_id, str | int)
    if not is_id or isinstance(given_id, bool) or len(str(given_id)) > _MAX_ID_CHARS:
        return _wrong("id is no string of 256 characters at most, and no whole number")
    wrong = _wrong_fields(fields)
    if wrong is not None:
        return WrongCommand(RequestError(wrong, code="invalid_command"), given_id)
    return Command(fields["type"], fields.get("delay_ms"), given_id)


def _wrong_fields(fields: Mapping[str, Any]) -> str | None:
    """What is wrong with the fields of a command, if anything."""
    name = fields.get("type")
    if name not in COMMAND_NAMES:
        return f"the type {str(name)[:80]!r} is no command; {_EXPECTED}"
    known = {"type", "id", *(["delay_ms"] if name == "delay" else [])}
    for field in fields:
        if field not in known:
            return f"{name} has no field {field[:80]!r}"
    delay_ms = fields.get("delay_ms")
    is_whole = isinstance(delay_ms, int) and not isinstance(delay_ms, bool)
    if name == "delay" and not is_whole:
        return "delay needs delay_ms, a whole number"
    return None


def _wrong(message: str) -> WrongCommand:
    return WrongCommand(RequestError(message, code="invalid_command"))


def is_pipe(descriptor: int) -> bool:
    """Return whether another program is at the other end of an open file."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class CommandReader:
    """Reads commands on a thread of its own. The end of the input is a `stop`.

    So a program that has gone leaves nobody behind who listens.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: queue.Queue[Command | WrongCommand] = queue.Queue(MAX_WAITING)
        self._has_ended = threading.Event()
        self._is_closed = threading.Event()
        # Its other end is closed to wake the thread.
        self._wake, self._wake_end = os.pipe()
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Return whether a stop has been read, or the input is over."""
        return self._has_ended.is_set()

    def take(self) -> list[Command | WrongCommand]:
        """Return the commands since the last call, 64 at most."""
        taken: list[Command | WrongCommand] = []
        while len(taken) < MAX_WAITING:
            try:
                taken.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return taken

    def close(self) -> None:
        """Read no more."""
        if not self._is_closed.is_set():
            self._is_closed.set()
            os.close(self._wake_end)
            self._thread.join()
            os.close(self._wake)

    def _run(self) -> None:
        for line in self._lines():
            one = read_command(line)
            if isinstance(one, Command) and one.name == "stop":
                break
            if one is not None:
                self._put(one)
        self._has_ended.set()
        self._put(Command("stop"))

    def _put(self, one: Command | WrongCommand) -> None:
        """Add a command once there is room, unless the reader is closed meanwhile."""
        while not self._is_closed.is_set():
            try:
                self._waiting.put(one, timeout=_ROOM_S)
            except queue.Full:
                continue
            return

    def _lines(self) -> Iterator[bytes]:
        """Lines without their ends; one that is too long is cut, and so no command."""
        pending = b""
        is_cut = False
        while (read := self._read()) is not None:
            *whole, rest = (pending + read).split(b"\n")
            for line in whole:
                if not is_cut:
                    yield line
                is_cut = False
            if len(rest) > _MAX_LINE_BYTES and not is_cut:
                yield rest
                is_cut = True
            pending = b"" if is_cut else rest
        if pending:
            yield pending

    def _read(self) -> bytes | None:
        """The next bytes; None at the end, or after `close`."""
        try:
            # A pipe may be set not to wait, as some programs leave it.
            ready, _, _ = select.select([self._descriptor, self._wake], [], [])
            if self._wake in ready:
                return None
            return os.read(self._descriptor, _READ_BYTES) or None
        except BlockingIOError:
            return b""
        except OSError:  # a terminal that has gone
            return None
