"""A transcription that was killed goes on where it was."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.sounds import speech_like
from voxmlx.transcribe import main

ROOT = Path(__file__).parent.parent
FORMATS = ("txt", "srt", "json")


class Transcription:
    """A sound, and the results of a run without interruption."""

    def __init__(self, directory: Path, model: Path) -> None:
        self.sound = directory / "talk.flac"
        soundfile.write(self.sound, speech_like(16_000 * 40, seed=12), 16_000)
        self.model = model
        self.whole = directory / "whole"
        assert self.run(self.whole, "jsonl", *FORMATS) == 0
        self.journal = (self.whole / "talk.jsonl").read_bytes()

    def arguments(self, results: Path, *formats: str) -> list[str]:
        named = [word for name in formats for word in ("--format", name)]
        options = ["--dtype", "float32", "--output-dir", str(results)]
        return [str(self.sound), "--model", str(self.model), *options, *named]

    def run(self, results: Path, *formats: str) -> int:
        return main(self.arguments(results, *formats))

    def assert_whole(self, results: Path, *formats: str) -> None:
        """The results there, and nothing else, are those of the whole run."""
        assert {path.suffix for path in results.iterdir()} == {f".{f}" for f in formats}
        for name in formats:
            assert read(results / f"talk.{name}") == read(self.whole / f"talk.{name}")


def read(path: Path) -> Any:
    """The content, without the last bits of probabilities."""
    text = path.read_text("utf-8")
    if path.suffix not in (".json", ".jsonl"):
        return text
    rows = [
        json.loads(line, parse_float=lambda text: round(float(text), 2))
        for line in text.splitlines()
    ]
    for row in rows:
        row.pop("logprobs", None)
    return rows


@pytest.fixture(scope="module")
def transcription(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint_dir: Path
) -> Transcription:
    return Transcription(tmp_path_factory.mktemp("talk"), tiny_checkpoint_dir)


@pytest.mark.parametrize("n_bytes", [0, 30, 1500, 4001, 9000, 1 << 40])
def test_a_journal_cut_anywhere_is_gone_on_with(
    transcription: Transcription,
    tmp_path: Path,
    n_bytes: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "talk.partial.jsonl").write_bytes(transcription.journal[:n_bytes])
    (tmp_path / "talk.partial.srt").write_text("1\n00:00:0")
    assert transcription.run(tmp_path, "jsonl", *FORMATS) == 0
    assert ("going on at 0:" in capsys.readouterr().err) == (n_bytes >= 4001)
    transcription.assert_whole(tmp_path, "jsonl", *FORMATS)


def test_a_journal_of_other_options_is_not_used(
    transcription: Transcription, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "talk.partial.jsonl").write_bytes(transcription.journal[:4000])
    arguments = [*transcription.arguments(tmp_path, "jsonl"), "--pause", "2000"]
    assert main(arguments) == 0
    assert "going on" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["talk.jsonl"]


# The command, which waits once its journal has some seconds, and says so.
_HELD = """
import sys
from pathlib import Path
from voxmlx.cli.results import Results
from voxmlx.transcribe import main
journal, feed = Path(sys.argv[1]), Results.feed
def held(results, event):
    feed(results, event)
    if not sys.stdin.closed and journal.stat().st_size >= 2000:
        print("there", flush=True)
        sys.stdin.read()
        sys.stdin.close()
Results.feed = held
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_transcription_goes_on(
    transcription: Transcription, tmp_path: Path, number: int
) -> None:
    results = tmp_path / "results"
    command = [sys.executable, "-m", "voxmlx.transcribe"]
    held = [sys.executable, "-c", _HELD, str(results / "talk.partial.jsonl")]
    with subprocess.Popen(
        [*held, *transcription.arguments(results, *FORMATS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.send_signal(number)
        process.stdin.close()
    assert not (results / "talk.json").exists()
    done = subprocess.run(
        [*command, *transcription.arguments(results, *FORMATS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "going on at 0:" in done.stderr
    transcription.assert_whole(results, *FORMATS)


@pytest.mark.slow
def test_a_hundred_cut_journals_are_gone_on_with(
    transcription: Transcription, tmp_path: Path
) -> None:
    chance = random.Random(3)
    for i in range(100):
        results = tmp_path / str(i)
        results.mkdir()
        n = chance.randint(0, len(transcription.journal))
        (results / "talk.partial.jsonl").write_bytes(transcription.journal[:n])
        assert transcription.run(results, "jsonl", *FORMATS) == 0
        transcription.assert_whole(results, "jsonl", *FORMATS)
