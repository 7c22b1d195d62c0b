"""Each command is answered once, in order, and nothing after the stream's end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile

from tests.live.spoken_numbers import NumberSession, as_session, spoken
from voxmlx.audio.block_queue import Block
from voxmlx.audio.file_source import FileSource
from voxmlx.audio.files import open_audio
from voxmlx.errors import DelayError
from voxmlx.events import Event, Finished, WordFinal
from voxmlx.live.captions import Captions
from voxmlx.live.changing_stream import ChangingStream
from voxmlx.live.command_runner import CommandRunner
from voxmlx.live.json_display import JsonOutput
from voxmlx.live.stream_metrics import StreamMetrics
from voxmlx.live.worker_commands import Command, WrongCommand, read_command
from voxmlx.session import Session

Line = tuple[str, dict[str, Any]]


class Script:
    """A source of sound that gives a block at a time, and commands between them."""

    name = "script"

    def __init__(self, steps: list[np.ndarray | str]) -> None:
        self.steps = list(steps)
        self.is_ended = self.is_paused = False
        self.log: list[str] = []

    def read(self, timeout_s: float) -> list[Block]:
        if timeout_s == 0 or self.is_ended:
            return []
        if not self.steps:
            self.is_ended = True
        elif isinstance(step := self.steps[0], np.ndarray) and not self.is_paused:
            self.steps.pop(0)
            return [Block(step, 0.0)]
        return []

    def take(self) -> list[Command | WrongCommand]:
        taken: list[Command | WrongCommand] = []
        while self.steps and isinstance(step := self.steps[0], str):
            self.steps.pop(0)
            one = read_command(step.encode())
            assert one is not None
            taken.append(one)
        return taken

    def pause(self) -> None:
        self.is_paused = True
        self.log.append("pause")

    def resume(self) -> None:
        self.is_paused = False
        self.log.append("resume")

    def stop(self) -> None:
        self.is_ended = True

    def close(self) -> None: ...


class Output:
    """What is written, as the display would, with the words among it."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.time_ms = 0
        self.is_over = False

    def write(self, kind: str, **fields: Any) -> None:
        self.lines.append((kind, fields))

    def on_audio(self, samples: np.ndarray, /) -> None:
        self.time_ms += len(samples) // 16

    def on_events(self, events: list[Event], /) -> None:
        for event in events:
            if isinstance(event, WordFinal):
                self.write(event.word.text)
            elif isinstance(event, Finished):
                self.write("finished")
                self.is_over = True

    def on_tick(self, metrics: StreamMetrics, /) -> None: ...


def ran(steps: list[np.ndarray | str]) -> tuple[list[Line], list[str]]:
    """The lines of a run, and what was done to the source."""

    def open_session(delay_ms: int) -> Session:
        if delay_ms % 80:
            raise DelayError(f"no delay of {delay_ms} ms")
        return as_session(NumberSession(delay_ms))

    source, output = Script(steps), Output()
    stream = ChangingStream(open_session(480), open_session)
    listeners: list[Any] = [output]
    captions = Captions(source, stream, listeners, StreamMetrics())
    listeners.append(
        CommandRunner(
            cast(Any, source),
            cast(JsonOutput, output),
            captions,
            [source],
            stream,
            pause_ms=800,
        )
    )
    captions.run()
    return output.lines, source.log


def kinds(lines: list[Line], is_shown: Callable[[str], bool] = bool) -> list[str]:
    return [kind for kind, _ in lines if is_shown(kind)]


SPEECH = spoken([(5, 2), (6, 2)])


def test_a_flush_is_answered_when_its_words_are_out() -> None:
    lines, _ = ran([SPEECH, "flush", spoken([(7, 2)])])
    assert kinds(lines) == ["5", "6", "flushed", "7", "finished"]


def test_a_pause_closes_the_source_at_once_and_brings_out_the_words() -> None:
    lines, log = ran([SPEECH, "pause", "pause", "resume", "resume", spoken([(7, 2)])])
    assert log == ["pause", "resume"]
    answers = [(k, f.get("time_ms")) for k, f in lines if not k.isdecimal()]
    paused_ms = answers[0][1]
    assert [kind for kind, _ in answers[:4]] == ["paused", "paused"] + ["resumed"] * 2
    assert answers[4] == ("flushed", paused_ms)
    assert kinds(lines, str.isdecimal) == ["5", "6", "7"]


def test_the_last_delay_counts_and_the_one_before_is_told_so() -> None:
    lines, _ = ran(
        [
            SPEECH[: len(SPEECH) // 2],
            '{"type": "delay", "delay_ms": 240, "id": 1}',
            '{"type": "delay", "delay_ms": 100, "id": 2}',
            '{"type": "delay", "delay_ms": 960, "id": 3}',
            SPEECH[len(SPEECH) // 2 :],
            *[np.zeros(1280, np.float32)] * 30,
        ]
    )
    answers = [(k, f.get("id"), f.get("code")) for k, f in lines if "id" in f]
    assert answers == [
        ("error", 2, "invalid_value"),
        ("error", 1, "replaced"),
        ("delay", 3, None),
    ]
    assert kinds(lines, str.isdecimal) == ["5", "6"]


def test_wrong_commands_change_nothing_and_nothing_follows_the_end() -> None:
    lines, _ = ran([SPEECH, "halt", "delay 960", "stop", "flush", "resume"])
    assert kinds(lines) == ["5", "error", "6", "finished"]


def test_a_delay_that_is_there_already_is_answered_at_once() -> None:
    lines, _ = ran(["delay 480", SPEECH])
    assert kinds(lines) == ["delay", "5", "6", "finished"]


class Loop:
    """The loop of a stream, of which a test says when a flush is out."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.pauses_ms: list[int] = []
        self.n_out = 0

    def flush(self, pause_ms: int = 0, /) -> Callable[[], bool]:
        self.pauses_ms.append(pause_ms)
        number = len(self.pauses_ms)
        return lambda: self.n_out >= number

    def stop(self) -> None:
        self.is_stopping = True


def flushes(first: int, end: int) -> list[np.ndarray | str]:
    return [f'{{"type": "flush", "id": {n}}}' for n in range(first, end)]


def driven(
    steps: list[np.ndarray | str],
) -> tuple[CommandRunner, Loop, Script, Output]:
    source, output, loop = Script(steps), Output(), Loop()
    runner = CommandRunner(
        cast(Any, source), cast(Any, output), loop, [source], None, pause_ms=800
    )
    return runner, loop, source, output


def ids(output: Output, kind: str) -> list[int]:
    return [fields["id"] for name, fields in output.lines if name == kind]


def test_no_command_is_run_after_a_signal() -> None:
    runner, loop, source, output = driven(["pause", "flush", "halt"])
    loop.stop()
    runner.on_tick(None)
    assert (source.log, loop.pauses_ms, output.lines) == ([], [], [])


def test_flushes_that_come_meanwhile_are_one_flush_and_each_is_answered() -> None:
    runner, loop, _, output = driven(flushes(0, 10))
    runner.on_tick(None)
    assert loop.pauses_ms == [0]
    loop.n_out = 1
    runner.on_tick(None)
    assert ids(output, "flushed") == [0]
    assert loop.pauses_ms == [0, 0]
    loop.n_out = 2
    runner.on_tick(None)
    assert ids(output, "flushed") == list(range(10))
    assert loop.pauses_ms == [0, 0]


def test_no_more_than_64_flushes_wait_and_others_are_not_read() -> None:
    runner, loop, source, output = driven(flushes(0, 200))
    runner.on_tick(None)
    source.steps += flushes(200, 300)
    for _ in range(3):
        runner.on_tick(None)
    assert len(source.steps) == 100
    for _ in range(300):
        loop.n_out = len(loop.pauses_ms)
        runner.on_tick(None)
    assert ids(output, "flushed") == list(range(300))
    assert len(loop.pauses_ms) < 10


def test_flushes_that_wait_when_the_stream_ends_are_told_so() -> None:
    runner, loop, _, output = driven(flushes(0, 4))
    runner.on_tick(None)
    loop.stop()
    runner.on_tick(None)
    loop.n_out = 9
    runner.on_tick(None)
    assert ids(output, "error") == [1, 2, 3]
    assert {f["code"] for k, f in output.lines if k == "error"} == {"stopped"}
    assert ids(output, "flushed") == [0]
    assert loop.pauses_ms == [0]


def test_nothing_is_heard_before_the_silence_of_a_pause_that_waits() -> None:
    runner, loop, source, output = driven(["flush", "pause", "resume"])
    runner.on_tick(None)
    assert source.log == ["pause"]
    assert kinds(output.lines) == ["paused"]
    loop.n_out = 1
    runner.on_tick(None)
    assert loop.pauses_ms == [0, 800]
    assert source.log == ["pause", "resume"]


TALK = spoken([(5, 2), (6, 2), (7, 12), (8, 2)])


@pytest.mark.parametrize("delay", ["delay 2400", "delay 960", "delay 80"])
@pytest.mark.parametrize("n_before", range(1, len(TALK) // 1280, 3))
def test_a_flush_has_all_its_words_before_its_answer_whenever_the_delay_changes(
    n_before: int, delay: str
) -> None:
    first, rest = np.split(TALK, [1280 * n_before])
    rest = np.concatenate([rest, spoken([(9, 12)])])
    for steps in (
        [first, delay, rest, "flush"],
        [first, delay, rest, "flush", "delay 480"],
        [first, rest, "flush", delay],
        [first, rest, delay, "flush"],
    ):
        lines, _ = ran([*steps, np.zeros(1280, np.float32)])
        assert kinds(lines, str.isdecimal) == ["5", "6", "7", "8", "9"]
        said = kinds(lines)
        assert said.count("flushed") == 1
        assert said.index("flushed") > said.index("9")


@pytest.mark.parametrize("after", [[], [np.zeros(1280, np.float32)]])
def test_words_that_the_next_session_hears_again_come_before_the_answer(
    after: list[np.ndarray | str],
) -> None:
    # The utterance ends within the silence of the flush, after a word behind its pause.
    sound = spoken([(5, 2), (6, 2), (12, 11)])
    lines, _ = ran([sound[:25600], "delay 80", sound[25600:], "flush", *after])
    assert kinds(lines, lambda kind: kind != "delay") == [
        *("5", "6", "12"),
        *("flushed", "finished"),
    ]


def test_many_flushes_without_new_sound_add_the_silence_of_one() -> None:
    once, _ = ran([SPEECH, *flushes(0, 1)])
    often, _ = ran([SPEECH, *flushes(0, 150)])
    answers = [fields for kind, fields in often if kind == "flushed"]
    assert [fields["id"] for fields in answers] == list(range(150))
    (alone,) = (fields for kind, fields in once if kind == "flushed")
    assert {fields["time_ms"] for fields in answers} == {alone["time_ms"]}


def test_a_pause_after_a_flush_still_ends_the_utterance() -> None:
    lines, _ = ran([SPEECH, "flush", "pause", "resume"])
    first, second = (f["time_ms"] for kind, f in lines if kind == "flushed")
    assert second > first


class Signalled(Script):
    """A reader during whose first tick a signal comes, and in the next a pause."""

    def __init__(self, stop: Callable[[], None]) -> None:
        super().__init__([])
        self._stop = stop
        self._n_ticks = 0

    def take(self) -> list[Command | WrongCommand]:
        if self._n_ticks == 0:
            self._stop()
        return [Command("pause")] if self._n_ticks == 1 else []

    def on_audio(self, *heard: object) -> None: ...
    def on_events(self, events: object) -> None: ...

    def on_tick(self, metrics: object) -> None:
        self._n_ticks += 1
        assert self._n_ticks < 50, "the stream does not end"


def test_a_pause_after_a_signal_does_not_keep_a_stream_from_its_end(
    tmp_path: Path,
) -> None:
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.zeros(16_000 * 20, np.int16), 16_000)
    source = FileSource(open_audio(path))
    listeners: list[Any] = []
    stream = as_session(NumberSession(480))
    captions = Captions(source, stream, listeners, StreamMetrics())
    reader, output = Signalled(captions.stop), Output()
    runner = CommandRunner(
        cast(Any, reader), cast(Any, output), captions, [source], None, pause_ms=800
    )
    listeners += [output, runner, reader]
    captions.run()
    source.close()
    assert kinds(output.lines) == ["finished"]


def test_a_delay_that_waits_for_a_flush_holds_up_neither_pause_nor_stop() -> None:
    runner, loop, source, output = driven(["flush", "delay 960", "pause"])
    runner.on_tick(None)
    assert source.log == ["pause"]
    assert kinds(output.lines) == ["paused"]
    source.steps.append("stop")
    runner.on_tick(None)
    assert loop.is_stopping


def test_what_waits_behind_a_delay_is_answered_when_the_stream_ends() -> None:
    flush = '{"type": "flush", "id": %d}'
    delay = '{"type": "delay", "delay_ms": 960, "id": 2}'
    runner, loop, _, output = driven([flush % 1, delay, flush % 3])
    runner.on_tick(None)
    loop.stop()
    runner.on_tick(None)
    assert sorted(ids(output, "error")) == [2, 3]
