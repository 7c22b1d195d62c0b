"""A live stream that was killed goes on as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.sounds import speech_like
from voxmlx.events import Event
from voxmlx.live.__main__ import main
from voxmlx.live.captions import Captions
from voxmlx.text.journal import read_journal

ROOT = Path(__file__).parents[2]
OPTIONS = ["--plain", "--delay", "240", "--dtype", "float32"]


class Stream:
    """A sound, and the files that a run without interruption makes of it."""

    def __init__(self, directory: Path, model: Path) -> None:
        self.sound = directory / "sound.wav"
        soundfile.write(self.sound, speech_like(16_000 * 12 + 321, seed=11), 16_000)
        self.model = model
        self.whole = directory / "whole"
        self.whole.mkdir()
        assert self.run(self.whole, "--record") == 0

    def arguments(self, directory: Path, option: str) -> list[str]:
        files = [option, str(directory / "talk.wav")]
        for suffix in ("jsonl", "srt", "txt"):
            files += ["--output", str(directory / f"talk.{suffix}")]
        return [
            "--model",
            str(self.model),
            "--input",
            str(self.sound),
            *OPTIONS,
            *files,
        ]

    def run(self, directory: Path, option: str) -> int:
        return main(self.arguments(directory, option))

    def start(self, directory: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "voxmlx.live"]
        return subprocess.Popen(
            [*command, *self.arguments(directory, "--record"), "--realtime"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def assert_resumed(self, directory: Path) -> None:
        """Resume the stream there; all files are those of the whole run."""
        assert self.run(directory, "--resume") == 0
        for name in ("talk.wav", "talk.srt", "talk.txt"):
            assert (directory / name).read_bytes() == (self.whole / name).read_bytes()
        assert rows(directory / "talk.jsonl") == rows(self.whole / "talk.jsonl")


def rows(path: Path) -> list[dict[str, Any]]:
    """The events, without the last bits of probabilities.

    They differ from run to run, as they depend on how many positions a pass takes.
    """
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for event in events:
        event.pop("logprobs", None)
        if "confidence" in event:
            event["confidence"] = round(event["confidence"], 2)
    return events


@pytest.fixture(scope="module")
def stream(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint_dir: Path
) -> Stream:
    return Stream(tmp_path_factory.mktemp("stream"), tiny_checkpoint_dir)


def cut(source: Path, destination: Path, n_bytes: int) -> None:
    destination.write_bytes(source.read_bytes()[:n_bytes])


def cut_anywhere(stream: Stream, directory: Path, chance: random.Random) -> None:
    for name in ("talk.wav", "talk.jsonl", "talk.srt"):
        size = (stream.whole / name).stat().st_size
        cut(stream.whole / name, directory / name, chance.randint(0, size))


def test_a_recorded_stream_writes_down_its_ids(stream: Stream) -> None:
    journal = read_journal(stream.whole / "talk.jsonl")
    assert journal.head["delay_ms"] == 240
    kinds = [row["type"] for row in rows(stream.whole / "talk.jsonl")]
    assert kinds[-1] == "finished"
    n_tokens = rows(stream.whole / "talk.jsonl")[-1]["n_tokens"]
    assert [token.index for token in journal.tokens] == list(range(n_tokens))
    assert all(token.logprob is not None for token in journal.tokens)


@pytest.mark.parametrize(
    ("n_wav", "n_jsonl"),
    [
        (44 + 16_000 * 2 * 7 + 1, 3000),
        (44 + 16_000 * 2 * 4, 1 << 40),  # ids ahead of the sound
        (44 + 16_000 * 2 * 11, 0),  # no ids
        (20, 3000),  # not even a header
        (0, 0),
    ],
)
def test_files_cut_by_a_crash_become_those_of_a_whole_run(
    stream: Stream, tmp_path: Path, n_wav: int, n_jsonl: int
) -> None:
    cut(stream.whole / "talk.wav", tmp_path / "talk.wav", n_wav)
    cut(stream.whole / "talk.jsonl", tmp_path / "talk.jsonl", n_jsonl)
    stream.assert_resumed(tmp_path)


def test_a_file_that_ended_in_zeros_is_gone_on_with(
    stream: Stream, tmp_path: Path
) -> None:
    # So a file system leaves what it had no time to write.
    cut(stream.whole / "talk.wav", tmp_path / "talk.wav", 150_000)
    text = (stream.whole / "talk.jsonl").read_bytes()
    (tmp_path / "talk.jsonl").write_bytes(text[:2500] + bytes(600))
    stream.assert_resumed(tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_files_cut_anywhere_become_those_of_a_whole_run(
    stream: Stream, tmp_path: Path, seed: int
) -> None:
    cut_anywhere(stream, tmp_path, random.Random(seed))
    stream.assert_resumed(tmp_path)


def kill(stream: Stream, directory: Path, chance: random.Random) -> None:
    """Start the stream and end it with SIGKILL at a random moment of its sound."""
    process = stream.start(directory)
    try:
        recording = directory / "talk.wav"
        end = time.monotonic() + 120
        while not recording.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 12))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_killed_stream_goes_on(stream: Stream, tmp_path: Path) -> None:
    kill(stream, tmp_path, random.Random(1))
    stream.assert_resumed(tmp_path)


@pytest.mark.slow
def test_a_hundred_killed_and_cut_streams_go_on(stream: Stream, tmp_path: Path) -> None:
    chance = random.Random(17)
    for i in range(100):
        directory = tmp_path / str(i)
        directory.mkdir()
        kill(stream, directory, chance)
        for name in ("talk.wav", "talk.jsonl"):
            path = directory / name
            if path.exists() and chance.random() < 0.5:
                os.truncate(path, chance.randint(0, path.stat().st_size))
        stream.assert_resumed(directory)


def test_a_stream_killed_while_it_resumes_can_be_resumed(
    stream: Stream, tmp_path: Path
) -> None:
    cut(stream.whole / "talk.wav", tmp_path / "talk.wav", 300_000)
    whole = (stream.whole / "talk.jsonl").read_bytes()
    # What is written again is what was there: the file is whole at every moment.
    for n_written in (0, 700, 1901):
        (tmp_path / "talk.jsonl").write_bytes(whole[:n_written] + whole[n_written:4000])
        tokens = read_journal(tmp_path / "talk.jsonl").tokens
        assert len(tokens) >= 25
    stream.assert_resumed(tmp_path)


def test_a_stop_while_a_stream_is_replayed_ends_it_like_any_other_stop(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(stream.whole / "talk.wav", tmp_path / "talk.wav", 1 << 40)
    cut(stream.whole / "talk.jsonl", tmp_path / "talk.jsonl", 3000)

    def replay(self: Captions, replayed: Iterable[Sequence[Event]]) -> None:
        self.stop()  # as a signal does, or a command
        replayed_whole(self, replayed)

    replayed_whole = Captions.replay
    monkeypatch.setattr(Captions, "replay", replay)
    stream.assert_resumed(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--delay", "480"], "resume with the model and options of the first run"),
        (["--pause", "2000"], "resume with the model and options of the first run"),
    ],
)
def test_other_options_are_refused_and_nothing_is_touched(
    stream: Stream,
    tmp_path: Path,
    change: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut_anywhere(stream, tmp_path, random.Random(5))
    cut(stream.whole / "talk.jsonl", tmp_path / "talk.jsonl", 3000)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main([*stream.arguments(tmp_path, "--resume"), *change]) == 1
    assert message in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_wav_of_another_kind_is_refused(
    stream: Stream, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "talk.wav", np.zeros((800, 2)), 44_100)
    before = (tmp_path / "talk.wav").read_bytes()
    assert stream.run(tmp_path, "--resume") == 1
    assert "is no recording of voxmlx live" in capsys.readouterr().err
    assert (tmp_path / "talk.wav").read_bytes() == before


@pytest.mark.parametrize(
    "wrong", [["--record", "b.wav"], ["--server", "ws://127.0.0.1:1"]]
)
def test_resume_does_not_go_with_every_option(wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--resume", "a.wav", *wrong])
