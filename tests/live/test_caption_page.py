"""`--serve-captions`: where it listens, and what is told before a microphone opens."""

import json
import os
import re
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from tests.live.fake_portaudio import FakePortAudio
from voxmlx import demo
from voxmlx.live.__main__ import main
from voxmlx.live.caption_page import page_address
from voxmlx.overlay.caption_server import CaptionServer

SAID = (demo.DIRECTORY / "sample.txt").read_text("utf-8").split()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8123", ("127.0.0.1", 8123)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:8123", ("0.0.0.0", 8123)),
        ("localhost:80", ("localhost", 80)),
        ("[::1]:8123", ("::1", 8123)),
    ],
)
def test_an_address_is_a_port_of_this_machine_or_a_host_and_a_port(
    text: str, address: tuple[str, int]
) -> None:
    assert page_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "port", "-1", "65536", ":8123", "::1:8123", "host:", "8123:", "8e3"]
)
def test_a_wrong_address_exits_with_2(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--demo", f"--serve-captions={text}"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected PORT or HOST:PORT" in line


def check_one_line(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> tuple[str, FakePortAudio]:
    """What a command that fails says, and whether a microphone was opened."""
    portaudio = FakePortAudio(Mic=16_000.0)
    assert main(["--demo", *arguments], portaudio=portaudio) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line, portaudio


def test_a_port_in_use_is_one_line_before_the_microphone_opens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was asked for")

    monkeypatch.setattr("voxmlx.live.local_sessions.load_model", load)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line, portaudio = check_one_line(["--serve-captions", str(port)], capsys)
    assert f"port {port} of 127.0.0.1 is in use" in line
    assert "--serve-captions" in line
    assert portaudio.streams == []
    line, _ = check_one_line(["--serve-captions", "192.0.2.1:8123"], capsys)
    assert "--serve-captions 192.0.2.1 is no address of this machine" in line


def test_a_missing_extra_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("voxmlx.overlay")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    line, portaudio = check_one_line(["--serve-captions", "0"], capsys)
    assert "--serve-captions needs starlette" in line
    assert "pip install 'voxmlx-realtime[serve]'" in line
    assert portaudio.streams == []


def test_what_is_said_goes_to_the_page_and_to_the_file_and_both_end_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, rate = soundfile.read(demo.SAMPLE, dtype="float32")
    silence = np.zeros(2 * rate, np.float32)
    talk = np.concatenate([samples[: int(2.6 * rate)], silence])
    soundfile.write(tmp_path / "talk.wav", talk, rate)
    last = tmp_path / "last.txt"
    shown: list[str] = []
    versions: list[str] = []
    text = " ".join(SAID[:6])
    is_over, is_shown = threading.Event(), threading.Event()
    replace, close = os.replace, CaptionServer.close

    def keep_version(source: Path, target: Path) -> None:
        if target == last:
            versions.append(Path(source).read_text("utf-8"))
        replace(source, target)

    def view() -> None:
        told = ""
        while not (found := re.search(r"captions on (http://[\d.:]+)\D", told)):
            if is_over.wait(0.02):
                return
            told += capsys.readouterr().err
        with httpx.stream("GET", f"{found[1]}/events", timeout=60) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    shown.append(json.loads(line.removeprefix("data: "))["text"])
                    if shown[-1] == text:
                        is_shown.set()

    def close_late(server: CaptionServer) -> None:
        is_shown.wait(60)  # a viewer that is late would skip it
        close(server)

    monkeypatch.setattr("voxmlx.live.last_lines.os.replace", keep_version)
    monkeypatch.setattr(CaptionServer, "close", close_late)
    viewer = threading.Thread(target=view)
    viewer.start()
    given = ["--input", str(tmp_path / "talk.wav"), "--realtime", "--plain"]
    given += ["--serve-captions", "0", "--caption-file", str(last)]
    try:
        assert main(["--demo", *given]) == 0
    finally:
        is_over.set()
        viewer.join(60)
    assert text in shown
    assert shown[-1] == ""
    assert any(" ".join(one.split()) == text for one in versions)
    assert last.read_text("utf-8") == ""
