"""Channels that are split: each says what it says alone, in one labelled result."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from voxmlx import AudioError, Checkpoint, demo, load, open_audio, transcribe_file
from voxmlx.batch import Batch
from voxmlx.events import (
    ChannelEvent,
    Finished,
    TokenDecoded,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.file_transcript import split_events
from voxmlx.session import Session
from voxmlx.text.formats import FORMATS
from voxmlx.text.split_writers import SplitEvent, make_split_writer
from voxmlx.text.time_order import TimeOrder
from voxmlx.transcribe import main

CHANNELS = 3
SAID = [
    "seven oh seven zero nine two",
    "turn on the heating",
    "what time is it turn on the lights",
]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load("demo")


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers at once, on three channels at 8 kHz."""
    sound = soundfile.read(demo.SAMPLE, dtype="float32")[0]
    n = round(4.3 * 16_000)
    voices = np.zeros((n, CHANNELS), np.float32)
    for channel, (begin_s, end_s) in enumerate([(0, 2.8), (2.9, 4.3), (4.3, 8.6)]):
        voice = sound[int(begin_s * 16_000) : int(end_s * 16_000)]
        voices[: len(voice), channel] = voice
    path = tmp_path_factory.mktemp("call") / "call.wav"
    soundfile.write(path, voices, 16_000)
    return path


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    monkeypatch.setattr("voxmlx.transcribe.load_model", lambda _: checkpoint)

    def command(*arguments: str) -> tuple[int, str, str]:
        status = main(["--demo", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


def test_each_channel_says_what_it_says_alone(
    call: Path, checkpoint: Checkpoint
) -> None:
    ids: dict[int, list[int]] = {}
    with open_audio(call, channel="split") as audio:
        sessions = [Session(checkpoint, speculate=True) for _ in range(CHANNELS)]
        for event in split_events(audio, sessions, Batch(checkpoint.model)):
            if isinstance(event, ChannelEvent) and isinstance(
                event.event, TokenDecoded
            ):
                ids.setdefault(event.channel, []).append(event.event.token_id)
    for channel in range(1, CHANNELS + 1):
        session = Session(checkpoint)
        with open_audio(call, channel=channel) as audio:
            events = [e for piece in audio.pieces() for e in session.push(piece)]
        events += session.finish()
        alone = [e.token_id for e in events if isinstance(e, TokenDecoded)]
        assert ids[channel] == alone


def test_segments_of_all_channels_come_in_order_of_time(
    call: Path, checkpoint: Checkpoint
) -> None:
    transcript = transcribe_file(
        call, model=checkpoint, channel="split", labels=["Anna", "Ben"]
    )
    assert transcript.labels == ("Anna", "Ben", "channel 3")
    starts = [segment.start_ms for segment in transcript.segments]
    assert starts == sorted(starts)
    for channel, said in enumerate(SAID, 1):
        own = [s.text for s in transcript.segments if s.channel == channel]
        assert " ".join(own) == said
    lines = [
        f"{transcript.labels[(s.channel or 0) - 1]}: {s.text}"
        for s in transcript.segments
    ]
    assert transcript.text.splitlines() == lines
    assert "<v Anna>seven oh" in transcript.to_vtt()
    assert "Ben: turn on the heating" in transcript.to_srt()
    assert {s["label"] for s in json.loads(transcript.to_json())["segments"]} == {
        "Anna",
        "Ben",
        "channel 3",
    }


def test_every_format_says_who_speaks(call: Path, tmp_path: Path, run: Command) -> None:
    formats = [argument for name in FORMATS for argument in ("--format", name)]
    status, _, err = run(
        *formats, "--output-dir", str(tmp_path), "--channel", "split", "--label", "Anna",
        str(call),
    )  # fmt: skip
    assert (status, err) == (0, "")
    text = (tmp_path / "call.txt").read_text()
    assert sorted(line.partition(":")[0] for line in text.splitlines()) == [
        "Anna", "channel 2", "channel 3", "channel 3",
    ]  # fmt: skip
    srt = (tmp_path / "call.srt").read_text()
    assert re.findall(r"^(\d+)$", srt, re.MULTILINE) == ["1", "2", "3", "4"]
    begins = re.findall(r"^([\d:,]+) -->", srt, re.MULTILINE)
    assert begins == sorted(begins)
    assert "\nAnna: seven oh seven zero nine two\n" in srt
    assert "\n<v channel 2>turn on the heating\n" in (tmp_path / "call.vtt").read_text()
    whole = json.loads((tmp_path / "call.json").read_text())
    assert whole["text"] == text.removesuffix("\n")
    assert [one["label"] for one in whole["channels"]] == [
        "Anna", "channel 2", "channel 3",
    ]  # fmt: skip
    assert [one["text"].strip() for one in whole["channels"]] == SAID
    lines = [
        json.loads(line) for line in (tmp_path / "call.jsonl").read_text().splitlines()
    ]
    assert lines[0]["labels"] == ["Anna", "channel 2", "channel 3"]
    words = [line for line in lines if line["type"] == "word"]
    assert [w["text"] for w in words if w["channel"] == 2] == SAID[1].split()
    assert sum(line["type"] == "finished" for line in lines) == CHANNELS
    assert not list(tmp_path.glob("*.partial.*"))


def test_the_echo_of_another_channel_is_left_out_or_marked(
    tmp_path: Path, run: Command
) -> None:
    voice = soundfile.read(demo.SAMPLE, dtype="float32")[0][: round(2.8 * 16_000)]
    late, n = 1_600, len(voice)
    sound = np.zeros((n + late, 2), np.float32)
    sound[late:, 0], sound[:n, 1] = 0.25 * voice, voice
    path = tmp_path / "call.wav"
    soundfile.write(path, sound, 16_000)
    split = ["--channel", "split", "--label", "me", "--label", "them"]
    status, out, err = run(*split, str(path))
    assert (status, out) == (0, f"them: {SAID[0]}\n")
    assert "call.wav: 6 words were left out as the echo of another channel" in err
    status, out, err = run(*split, "--keep-echo", "--format", "json", str(path))
    assert (status, err) == (0, "")
    kept = json.loads(out)["segments"]
    assert [(one["label"], one["text"]) for one in kept] == [
        ("them", SAID[0]),
        ("me", SAID[0]),
    ]
    for segment in kept:
        for word in segment["words"]:
            assert word.get("is_echo", False) == (segment["label"] == "me")


def test_a_pipe_and_one_channel_are_split_as_well(
    call: Path, tmp_path: Path, run
) -> None:
    mono = tmp_path / "mono.wav"
    soundfile.write(mono, soundfile.read(call)[0][:, 1], 16_000)
    assert run("--channel", "split", str(mono))[:2] == (0, f"channel 1: {SAID[1]}\n")
    command = [sys.executable, "-m", "voxmlx.transcribe", "--demo"]
    piped = subprocess.run(
        [*command, "--channel", "split", "-"],
        input=call.read_bytes(),
        capture_output=True,
        check=True,
    )
    assert piped.stdout.decode() == run("--channel", "split", str(call))[1]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--label", "Anna"], 2, "--label goes with --channel split"),
        (["--channel", "split", "--server", "http://127.0.0.1:9"], 2,
         "of a model on this machine"),
        (["--keep-echo"], 2, "--keep-echo goes with --channel split"),
        (["--channel", "splat"], 2, "expected a number from 1, mix or split"),
        (["--channel", "split", *["--label", "A"] * 2], 2, "the same --label"),
        (["--channel", "split", "--label", "a --> b"], 2, "no name for a channel"),
        (["--channel", "split", *["--label", "a", "--label", "b", "--label", "c", "--label", "d"]],
         1, "has 3 channels, but 4 labels were given; leave some out"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_or_named_so_is_one_line(
    call: Path, run, arguments: list[str], status: int, said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if status == 2:
        with pytest.raises(SystemExit) as ended:
            run(*arguments, str(call))
        assert ended.value.code == 2
        out, err = capsys.readouterr()
    else:
        got, out, err = run(*arguments, str(call))
        assert got == status
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 1


def test_too_many_channels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.wav"
    soundfile.write(path, np.zeros((1_600, 17)), 16_000)
    with pytest.raises(
        AudioError, match="has 17 channels, expected at most 16 to split"
    ):
        open_audio(path, channel="split")


def test_silence_on_all_channels_is_no_silent_success(
    tmp_path: Path, run: Command
) -> None:
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros((16_000, 2)), 16_000)
    status, out, err = run("--channel", "split", "--format", "json", str(path))
    assert status == 0
    assert [w["code"] for w in json.loads(out)["warnings"]] == ["no_words"]
    assert "no words were heard in the 1.0 s" in err


def test_items_wait_for_a_channel_that_may_have_an_earlier_one() -> None:
    order: TimeOrder[str] = TimeOrder(2)
    order.push(0, 2_000, "late")
    order.advance(1, 1_500)
    assert order.take() == []
    order.push(1, 1_800, "early")
    assert order.take() == [(1, "early")]
    order.advance(1, 2_000)
    assert order.take() == [(0, "late")]


def test_a_channel_that_is_silent_does_not_hold_back_the_other_for_ever() -> None:
    writer = make_split_writer("txt", ["a", "b"])
    told = ""
    waiting: list[int] = []
    for second in range(200):
        ms = second * 1000
        for channel in (1, 2):
            token = TokenDecoded(32, second, ms)
            told += writer.feed(ChannelEvent(channel, token))
        word = Word("hm", ms, ms + 400)
        told += writer.feed(ChannelEvent(1, WordFinal(word, ms + 400)))
        told += writer.feed(ChannelEvent(1, UtteranceEnd(ms, ms + 400, ms + 900)))
        waiting.append(second + 1 - told.count("\n"))
    assert max(waiting) <= 14
    for channel in (1, 2):
        told += writer.feed(ChannelEvent(channel, Finished(200_000, 200)))
    assert told.count("\n") == 200


def test_ctrl_c_keeps_valid_files_of_all_channels(
    call: Path, tmp_path: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*arguments: Any) -> Iterator[SplitEvent]:
        n_words = 0
        for event in split_events(*arguments):
            yield event
            if isinstance(event, ChannelEvent) and isinstance(event.event, WordFinal):
                n_words += 1
                if n_words == 12:
                    raise KeyboardInterrupt

    monkeypatch.setattr("voxmlx.transcribe.split_events", broken_off)
    formats = ["--format", "json", "--format", "srt", "--format", "txt"]
    status, _, _ = run(
        "--channel", "split", *formats, "--output-dir", str(tmp_path), str(call)
    )
    assert status == 130
    whole = json.loads((tmp_path / "call.partial.json").read_text())
    assert whole["is_partial"] is True
    assert {segment["channel"] for segment in whole["segments"]} == {1, 2, 3}
    text = (tmp_path / "call.partial.txt").read_text()
    assert whole["text"] == text.removesuffix("\n")
    assert "-->" in (tmp_path / "call.partial.srt").read_text()
