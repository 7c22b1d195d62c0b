"""A program drives `voxmlx live --format jsonl`: commands in, events out."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import voxmlx
from tests.live.fake_portaudio import FakePortAudio
from tests.markdown import ROOT
from voxmlx import demo
from voxmlx.events import (
    Alternative,
    DraftChanged,
    Event,
    Finished,
    GuardActed,
    Recovered,
    SoundWarning,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.live.__main__ import main
from voxmlx.live.json_display import SCHEMA, JsonDisplay
from voxmlx.live.stream_metrics import StreamMetrics

PATIENCE_S = 120
SAID = (demo.DIRECTORY / "sample.txt").read_text("utf-8").split()
# The words that the fake microphone plays, first and in all.
FIRST, PLAYED = SAID[:10], SAID[:18]

Line = dict[str, Any]


class Worker:
    """The command, with what it has written so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[Line] = []
        self.device: list[str] = []
        self._n_waited = 0
        self._changed = threading.Condition()
        for read in (self._read_lines, self._read_device):
            threading.Thread(target=read, daemon=True).start()

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(json.loads(line))
                self._changed.notify_all()

    def _read_device(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self.device.append(line.strip())
                self._changed.notify_all()

    def send(self, command: str | Line) -> None:
        assert self.process.stdin is not None
        text = command if isinstance(command, str) else json.dumps(command)
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def wait(self, kind: str, *, n: int = 1) -> Line:
        """The n-th line of a kind after the one that was waited for last."""
        with self._changed:
            end = time.monotonic() + PATIENCE_S
            while True:
                found = [
                    i
                    for i in range(self._n_waited, len(self.lines))
                    if self.lines[i]["type"] == kind
                ]
                if len(found) >= n:
                    self._n_waited = found[n - 1] + 1
                    return self.lines[found[n - 1]]
                is_over = self.process.poll() is not None
                left = end - time.monotonic()
                assert left > 0, (kind, self.lines, self.device)
                # What it wrote last is read within a second.
                assert self._changed.wait(1.0) or not is_over, (kind, self.lines)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(is_so, PATIENCE_S), self.device

    @property
    def words(self) -> list[str]:
        return [line["text"] for line in self.lines if line["type"] == "word"]


@contextmanager
def working(
    *arguments: str,
    stdin: int = subprocess.PIPE,
    module: str = "tests.live.fake_worker",
    environment: dict[str, str] | None = None,
) -> Iterator[Worker]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | (environment or {}),
    )
    with process:
        try:
            yield Worker(process)
        finally:
            process.kill()


def test_a_program_pauses_resumes_flushes_changes_the_delay_and_stops(
    tmp_path: Path,
) -> None:
    recording = tmp_path / "heard.wav"
    given = ["--format", "jsonl", "--delay", "480", "--record", str(recording)]
    with working(*given) as worker:
        first = worker.wait("stream")
        assert first == {
            "type": "stream",
            "schema": SCHEMA,
            "package_version": voxmlx.__version__,
            "model": "demo",
            "delay_ms": 480,
            "draft_delay_ms": None,
            "source": "Mic",
            "captions_url": None,
            "sample_rate": 16_000,
        }
        worker.wait("word", n=len(FIRST))
        worker.wait("utterance_end", n=1)
        assert worker.words == FIRST

        worker.send("pause")
        paused = worker.wait("paused")
        worker.wait_until(lambda: worker.device[-1:] == ["closed"])
        flushed = worker.wait("flushed")
        # The silence that brings out the last words is in the time; then it stands.
        assert flushed["time_ms"] == paused["time_ms"]
        status = worker.wait("status")
        assert status["time_ms"] == paused["time_ms"]
        worker.send({"type": "resume", "id": 7})
        resumed = worker.wait("resumed")
        assert resumed["id"] == 7
        assert resumed["source"] == "Mic"
        assert resumed["time_ms"] == paused["time_ms"]
        worker.wait_until(lambda: worker.device[-1:] == ["opened"])

        worker.send({"type": "delay", "delay_ms": 960, "id": "longer"})
        changed = worker.wait("delay")
        assert (changed["delay_ms"], changed["id"]) == (960, "longer")
        worker.send("nonsense")
        assert worker.wait("error")["code"] == "invalid_command"
        worker.send({"type": "delay", "delay_ms": 100, "id": 9})
        error = worker.wait("error")
        assert (error["code"], error["id"]) == ("invalid_value", 9)
        assert "80, 160, 240" in error["message"]

        worker.wait_until(lambda: len(worker.words) >= len(PLAYED))
        worker.send("flush")
        worker.wait("flushed")
        worker.send("stop")
        finished = worker.wait("finished")
        assert worker.process.wait(PATIENCE_S) == 0
    assert worker.words == PLAYED
    assert worker.lines[-1] == finished
    # Stream time is that of the recording, whatever happened meanwhile.
    recorded_ms = soundfile.info(recording).frames * 1000 // 16_000
    assert finished["duration_ms"] == recorded_ms
    worker.wait_until(lambda: "nothing is open" in worker.device)
    deltas = [line["text"] for line in worker.lines if line["type"] == "text_delta"]
    assert "".join(deltas).split() == PLAYED


def test_words_that_were_spoken_come_out_of_a_pause_in_mid_sentence() -> None:
    # In mid sentence however late we are to say so.
    part = {"FIRST_PART_S": "4.0"}
    given = ["--format", "jsonl", "--delay", "2400"]
    with working(*given, environment=part) as worker:
        worker.wait("stream")
        worker.wait("word")
        worker.send("pause")
        worker.wait("flushed")
        kinds = [line["type"] for line in worker.lines]
        paused, flushed = kinds.index("paused"), kinds.index("flushed")
        # What 2.4 s of sound had not said yet.
        assert kinds[paused:flushed].count("word") > 2
        assert "utterance_end" in kinds[paused:flushed]
        n_flushed = kinds[:flushed].count("word")
        worker.send("delay 80")  # so it can change in a pause
        assert worker.wait("delay")["delay_ms"] == 80
        assert worker.process.stdin is not None
        worker.process.stdin.close()  # the program is gone
        finished = worker.wait("finished")
        assert worker.process.wait(PATIENCE_S) == 0
        assert len(worker.words) == n_flushed
        assert finished["duration_ms"] >= 2400


def test_a_worker_whose_program_has_gone_closes_the_microphone() -> None:
    with working("--format", "jsonl") as worker:
        worker.wait("stream")
        worker.wait_until(lambda: worker.device[-1:] == ["opened"])
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        worker.wait("finished")
        assert worker.process.wait(PATIENCE_S) == 0
        worker.wait_until(lambda: "nothing is open" in worker.device)
    end, writer = os.pipe()
    os.close(writer)  # before the model is loaded
    with working("--format", "jsonl", stdin=end) as worker:
        os.close(end)
        assert worker.process.wait(PATIENCE_S) == 0
        assert "opened" not in worker.device
        assert worker.lines == []


def test_both_sides_of_a_call_come_with_labels_and_are_paused_together(
    tmp_path: Path,
) -> None:
    samples, rate = soundfile.read(demo.SAMPLE, dtype="int16")
    cut, end = int(2.6 * rate), int(4.9 * rate)
    sides = np.zeros((300 * rate, 2), np.int16)  # it is stopped sooner
    sides[:cut, 0], sides[: end - cut, 1] = samples[:cut], samples[cut:end]
    soundfile.write(tmp_path / "call.wav", sides, rate)
    given = ["--demo", "--format", "jsonl", "--realtime", "--channel", "split"]
    given += ["--label", "me", "--label", "them"]
    given += ["--input", str(tmp_path / "call.wav")]
    given += ["--caption-file", str(tmp_path / "last.txt")]
    seen: set[str] = set()
    with working(*given, module="voxmlx.live") as worker:
        first = worker.wait("stream")
        assert (first["labels"], first["schema"]) == (["me", "them"], SCHEMA)
        worker.wait("word", n=10)
        worker.send("pause")
        paused = worker.wait("paused")
        assert worker.wait("flushed")["time_ms"] == paused["time_ms"]
        status = worker.wait("status")
        assert status["label"] in ("me", "them")
        assert status["time_ms"] == paused["time_ms"]
        seen.add((tmp_path / "last.txt").read_text("utf-8"))
        worker.send("delay 960")
        assert worker.wait("error")["code"] == "not_here"
        worker.send("resume")
        assert worker.wait("resumed")["time_ms"] == paused["time_ms"]
        worker.send("stop")
        worker.wait("finished", n=2)
        assert worker.process.wait(PATIENCE_S) == 0
    words = [line for line in worker.lines if line["type"] == "word"]
    said = {
        label: [line["text"] for line in words if line["label"] == label]
        for label in ("me", "them")
    }
    assert said == {"me": SAID[:6], "them": SAID[6:10]}
    (shown,) = seen
    assert "them: turn on the heating" in shown


@pytest.mark.slow
def test_without_a_pipe_there_are_no_commands_and_a_signal_ends_it() -> None:
    with working("--format", "jsonl", stdin=subprocess.DEVNULL) as worker:
        worker.wait("stream")
        worker.wait("word", n=2)
        worker.process.send_signal(signal.SIGTERM)
        worker.wait("finished")
        assert worker.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    "command",
    [
        "{live} --input talk.wav < /dev/null",
        "{live} --input talk.wav <&-",
        "cat talk.wav | {live} --input -",
        pytest.param("{live} --input talk.wav < talk.wav", marks=pytest.mark.slow),
        pytest.param(
            "sleep 1 | {live} --input talk.wav --no-commands", marks=pytest.mark.slow
        ),
    ],
)
def test_standard_input_that_is_sound_or_no_pipe_has_no_commands(
    command: str, tmp_path: Path
) -> None:
    samples, rate = soundfile.read(demo.SAMPLE, dtype="int16")
    soundfile.write(tmp_path / "talk.wav", samples[: int(1.9 * rate)], rate)
    live = f"{sys.executable} -m voxmlx.live --demo --format jsonl"
    done = subprocess.run(
        ["sh", "-c", command.format(live=live)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["text"] for line in lines if line["type"] == "word"][:3] == SAID[:3]
    assert lines[0]["type"] == "stream"
    assert lines[-1]["type"] == "finished"
    assert {"error", "notice"} & {line["type"] for line in lines} == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--commands"],
        ["--commands", "--format", "txt"],
        ["--commands", "--format", "jsonl", "--input", "-"],
        ["--plain", "--format", "jsonl"],
        ["--format", "srt"],
    ],
)
def test_wrong_arguments_of_a_worker_exit_with_2(arguments: Sequence[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--demo", *arguments], portaudio=FakePortAudio(Mic=16_000.0))


# ------------------------------------------------------------------ the schema


EVENTS: list[Event] = [
    TokenDecoded(
        1, 0, 80, -0.5, (Alternative(1, "a", -0.5),), "loop", recovered="encoder"
    ),
    TextDelta(" a", 80),
    DraftChanged(" b", 160),
    WordFinal(Word("a", 0, 80, confidence=0.9, is_echo=True), 240),
    UtteranceEnd(0, 80, 900),
    GuardActed("loop", 80),
    Recovered("encoder", 80),
    SoundWarning("gap", "a gap", 80),
    Finished(1000, 12),
]


def documented() -> dict[str, set[str]]:
    """Kinds of lines and their fields, as docs/worker.md lists them."""
    page = (ROOT / "docs" / "worker.md").read_text("utf-8")
    section = page.split("## Lines on standard output")[1].split("\n### ")[0]
    kinds: dict[str, set[str]] = {}
    for row in section.splitlines():
        if row.startswith("| `"):
            kind, fields = (cell.strip() for cell in row.split("|")[1:3])
            kinds[kind.strip("`")] = {one.strip("` ") for one in fields.split(",")}
    return kinds


def test_every_kind_of_line_is_documented_with_its_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert {type(event) for event in EVENTS} == set(Event.__args__)
    head = ("model", "delay_ms", "draft_delay_ms", "source", "captions_url")
    display = JsonDisplay(
        dict.fromkeys(head),
        has_tokens=True,
        now=iter(range(9)).__next__,
    )
    with display:
        display.on_audio(np.zeros(16, np.float32))
        display.on_tick(StreamMetrics())
        display.on_events(EVENTS)
        display.notice("a sentence")
        for kind, fields in {
            "paused": {"time_ms": 1},
            "resumed": {"time_ms": 1, "source": "s"},
            "flushed": {"time_ms": 1},
            "delay": {"time_ms": 1, "delay_ms": 480},
            "error": {"code": "invalid_command", "message": "m"},
        }.items():
            display.write(kind, **fields, id=1)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = documented()
    assert {line["type"] for line in lines} == set(kinds)
    for line in lines:
        assert set(line) - {"type"} == kinds[line["type"]], line["type"]


def test_the_guide_names_every_command_and_every_code() -> None:
    page = (ROOT / "docs" / "worker.md").read_text("utf-8")
    for word in ("flush", "pause", "resume", "delay 960", "stop"):
        assert f"| `{word}`" in page
    source = Path(ROOT / "voxmlx" / "live" / "command_runner.py").read_text("utf-8")
    codes = {"invalid_command", "invalid_value", "not_here", "replaced", "stopped"}
    assert {code for code in codes if f'"{code}"' in source} == codes - {
        "invalid_command"
    }
    for code in codes:
        assert f"`{code}`" in page
