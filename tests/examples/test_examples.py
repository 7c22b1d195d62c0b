"""The examples run, with a fake menu bar and a fake microphone."""

import importlib.util
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import soundfile

from tests.examples import fake_rumps
from tests.markdown import ROOT
from voxmlx import demo
from voxmlx.live.json_display import SCHEMA

PATIENCE_S = 120
EXAMPLES = ROOT / "examples"
SAID = (demo.DIRECTORY / "sample.txt").read_text("utf-8").split()


def imported(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_menu_bar_shows_words_pauses_changes_the_delay_and_quits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rumps", fake_rumps)
    monkeypatch.chdir(ROOT)
    menu_bar: Any = imported("menu_bar")
    assert menu_bar.SCHEMA == SCHEMA
    app = menu_bar.MenuBar([sys.executable, "-m", "tests.live.fake_worker"])
    pause, delay, message, _, quit_item = app.menu
    titles: list[str] = []

    def wait(is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < end, (app.title, message.title)
            time.sleep(0.02)
            fake_rumps.timers[-1].tick()
            titles.append(app.title)

    wait(lambda: app.title.startswith("🎙"))
    assert message.title == "Mic, demo"
    assert [item.title for item in delay.items if item.state] == ["480 ms"]
    wait(lambda: "turn on the heating" in app.title)
    assert max(map(len, titles)) <= 42
    pause.click()
    wait(lambda: app.title.startswith("⏸"))
    assert pause.title == "Resume"
    pause.click()
    wait(lambda: app.title.startswith("🎙"))
    assert pause.title == "Pause"
    delay.items[2].click()
    wait(lambda: bool(delay.items[2].state))
    assert [item.title for item in delay.items if item.state] == ["960 ms"]
    quit_item.click()
    assert fake_rumps.quits
    wait(lambda: "ended with status 0" in message.title)


def test_the_menu_bar_says_that_the_worker_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "rumps", fake_rumps)
    menu_bar: Any = imported("menu_bar")
    app = menu_bar.MenuBar([sys.executable, "-c", "raise SystemExit(3)"])
    end = time.monotonic() + PATIENCE_S
    while "status 3" not in app.menu[2].title:
        assert time.monotonic() < end
        time.sleep(0.02)
        fake_rumps.timers[-1].tick()
    app.menu[0].click()  # a command to nobody is no error
    app.menu[4].click()


def test_the_application_with_an_event_loop_does_what_the_sample_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, rate = soundfile.read(demo.SAMPLE, dtype="int16")
    soundfile.write(tmp_path / "talk.wav", samples[: int(9.4 * rate)], rate)
    imported("async_commands").main([str(tmp_path / "talk.wav")])
    out = capsys.readouterr().out
    heard = re.findall(r"^heard: (.*)$", out, re.MULTILINE)
    assert " ".join(heard).split() == SAID[:18]
    assert out.count("the heating: on") == out.count("the lights: on") == 1


def test_the_swift_program_knows_the_schema_and_what_it_reads_is_documented() -> None:
    program = (EXAMPLES / "LiveCaptions.swift").read_text("utf-8")
    page = (ROOT / "docs" / "worker.md").read_text("utf-8")
    assert f"line.schema == {SCHEMA}" in program
    for field in re.findall(r"let (\w+): \w+\??$", program, re.MULTILINE):
        snake = re.sub(r"[A-Z]", lambda one: f"_{one[0].lower()}", field)
        assert f"`{snake}`" in page, snake
    for kind in re.findall(r'case ((?:"\w+"(?:, )?)+):', program):
        for name in re.findall(r'"(\w+)"', kind):
            assert f"| `{name}` |" in page, name


def test_the_page_of_the_examples_names_each_of_them() -> None:
    page = (EXAMPLES / "README.md").read_text("utf-8")
    found = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert found - {"README.md"} == set(re.findall(r"^\| \[([\w.]+)\]", page, re.M))
    assert Path(EXAMPLES / "LiveCaptions.swift").read_text("utf-8").startswith("//")
