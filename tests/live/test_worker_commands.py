"""What is a command, what is none, and how they are read from a pipe."""

import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from voxmlx.live.worker_commands import (
    Command,
    CommandReader,
    WrongCommand,
    is_pipe,
    read_command,
)


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (b"flush", Command("flush")),
        (b"  pause \r", Command("pause")),
        (b"delay 960", Command("delay", 960)),
        (b'{"type": "stop"}', Command("stop")),
        (b'{"type": "delay", "delay_ms": 80, "id": 7}', Command("delay", 80, 7)),
        (b'{"id": "a", "type": "resume"}', Command("resume", id="a")),
        (b"", None),
        (b" \t", None),
    ],
)
def test_words_and_json_are_commands(line: bytes, command: Command | None) -> None:
    assert read_command(line) == command


@pytest.mark.parametrize(
    "line",
    [
        b"halt",
        b"FLUSH",
        b"flush now",
        b"delay",
        b"delay long",
        b"delay -80",
        b"delay 480 960",
        b"delay 99999999999999999999",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"{}",
        b'{"type": []}',
        b'{"type": "delay"}',
        b'{"type": "delay", "delay_ms": true}',
        b'{"type": "delay", "delay_ms": 480.5}',
        b'{"type": "flush", "delay_ms": 480}',
        b'{"type": "flush", "now": 1}',
        b'{"type": "flush", "id": {}}',
        b'{"type": "flush", "id": true}',
        b'{"type": "flush", "id": "%s"}' % (b"x" * 300),
        b'{"type": ' + b"[" * 20_000,
    ],
)
def test_everything_else_is_told_with_what_was_expected(line: bytes) -> None:
    wrong = read_command(line)
    assert isinstance(wrong, WrongCommand)
    assert wrong.error.code == "invalid_command"
    assert len(str(wrong.error)) < 300


def test_a_wrong_command_keeps_its_id() -> None:
    wrong = read_command(b'{"type": "halt", "id": 3}')
    assert isinstance(wrong, WrongCommand)
    assert wrong.id == 3


@contextmanager
def reading() -> Iterator[tuple[int, CommandReader]]:
    end, writer = os.pipe()
    reader = CommandReader(end)
    try:
        yield writer, reader
    finally:
        reader.close()
        os.close(end)


def taken(reader: CommandReader, n: int) -> list[Command | WrongCommand]:
    found: list[Command | WrongCommand] = []
    end = time.monotonic() + 120
    while len(found) < n and time.monotonic() < end:
        found += reader.take()
        time.sleep(0.005)
    return found


def wait(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_lines_are_read_however_they_are_cut_and_the_end_is_a_stop() -> None:
    with reading() as (writer, reader):
        for piece in (b"fl", b"ush\n\npau", b"se\ndelay 9", b"60"):
            os.write(writer, piece)
            time.sleep(0.01)
        os.close(writer)
        expected = [Command("flush"), Command("pause"), Command("delay", 960)]
        assert taken(reader, 4) == [*expected, Command("stop")]
        assert reader.has_ended


def test_a_line_without_end_is_told_once_and_not_kept() -> None:
    with reading() as (writer, reader):
        for _ in range(64):
            os.write(writer, b"x" * 4096)
        os.write(writer, b"\nflush\n")
        os.close(writer)
        wrong, *rest = taken(reader, 3)
        assert isinstance(wrong, WrongCommand)
        assert rest == [Command("flush"), Command("stop")]


def test_commands_that_nobody_takes_wait_in_the_pipe_and_closing_is_not_held_up() -> (
    None
):
    with reading() as (writer, reader):
        os.set_blocking(writer, False)
        n_bytes = 0
        with suppress(BlockingIOError):
            while n_bytes < 1 << 20:
                n_bytes += os.write(writer, b"flush\n" * 100)
        assert n_bytes < 1 << 20
        os.close(writer)
        wait(lambda: len(reader.take()) > 0)


def test_a_pipe_that_is_set_not_to_wait_is_waited_for() -> None:
    end, writer = os.pipe()
    os.set_blocking(end, False)
    reader = CommandReader(end)
    time.sleep(0.02)
    os.write(writer, b"flush\n")
    assert taken(reader, 1) == [Command("flush")]
    assert not reader.has_ended
    reader.close()
    os.close(writer)
    os.close(end)


def test_only_what_another_program_holds_is_a_pipe() -> None:
    end, writer = os.pipe()
    assert is_pipe(end)
    os.close(end)
    os.close(writer)
    assert not is_pipe(end)
    with open(os.devnull) as nothing:
        assert not is_pipe(nothing.fileno())
    with open(__file__) as file:
        assert not is_pipe(file.fileno())


class Refilled(queue.Queue[Command | WrongCommand]):
    """A queue that another program fills as fast as it is emptied."""

    n_left = 1000

    def get_nowait(self) -> Command:
        self.n_left -= 1
        if self.n_left < 0:
            raise queue.Empty
        return Command("flush")


def test_no_more_than_64_commands_are_taken_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "Queue", Refilled)
    with reading() as (writer, reader):
        assert reader.take() == [Command("flush")] * 64
        os.close(writer)
