"""What a person sees: captions that scroll whole, one status line, no garbage."""

import contextlib
import io

import numpy as np
import pyte
import pytest
from rich.cells import cell_len
from rich.console import Console

from voxmlx.errors import ServerError
from voxmlx.events import DraftChanged, Finished, TextDelta, Word, WordFinal
from voxmlx.live.display import PlainDisplay, TerminalDisplay
from voxmlx.live.remote import RemoteMetrics
from voxmlx.live.stream_metrics import StreamMetrics

LATIN = "the quick brown fox jumps over the lazy dog and trots off into the forest "
CHINESE = "今天天气很好，我们一起去公园散步。晚上回家吃饭，然后看一部电影。"
ARABIC = "مرحبا بالعالم هذا نص طويل لاختبار التفاف الأسطر في الطرفية "


class Terminal:
    """A terminal of so many columns that a display draws on."""

    def __init__(self, columns: int, *, has_final_words: bool = False) -> None:
        self.screen = pyte.HistoryScreen(columns, 12, history=1000)
        self._stream = pyte.Stream(self.screen)
        self._file = io.StringIO()
        self.now = 0.0
        self.console = Console(
            file=self._file,
            width=columns,
            height=12,
            force_terminal=True,
            color_system="truecolor",
            legacy_windows=False,
        )
        self.display = TerminalDisplay(
            "USB microphone",
            480,
            has_final_words=has_final_words,
            console=self.console,
            now=lambda: self.now,
        )

    def lines(self) -> list[str]:
        """What scrolled off the top and what is there, without empty lines."""
        text = self._file.getvalue().replace("\n", "\r\n")
        self._file.seek(0)
        self._file.truncate()
        self._stream.feed(text)
        top = [
            "".join(row[column].data for column in range(self.screen.columns))
            for row in self.screen.history.top
        ]
        return [line.rstrip() for line in [*top, *self.screen.display] if line.strip()]


def speak(terminal: Terminal, text: str, *, step: int = 3) -> None:
    for i in range(0, len(text), step):
        terminal.now += 0.24
        terminal.display.on_events([TextDelta(text[i : i + step], 80 * i)])
        terminal.display.on_tick(metrics())


def metrics() -> StreamMetrics:
    found = StreamMetrics()
    found.pushed(np.full(160_000, 0.1, np.float32))
    found.stepped(100, 0.5, [0.012] * 100)
    return found


def joined(lines: list[str]) -> str:
    return "".join("".join(lines).split())


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("text", [LATIN * 4, CHINESE * 6, ARABIC * 4, LATIN + CHINESE])
def test_every_word_is_on_the_screen_once_and_lines_fit(
    columns: int, text: str
) -> None:
    terminal = Terminal(columns)
    with terminal.display:
        speak(terminal, text)
        lines = terminal.lines()
        # pyte shows a wide character as itself and an empty cell.
        assert joined(lines[:-1]) == joined([text])
        assert all(cell_len(line) <= columns for line in lines)
        assert lines[-1].startswith("▆ lag 0.0 s · 200 tok/s of 12.5")
    lines = terminal.lines()
    assert joined(lines) == joined([text])


def test_a_narrow_terminal_gets_fewer_figures_and_never_half_of_one() -> None:
    for columns, last in ((40, "0:10"), (80, "delay 480 ms"), (120, "USB microphone")):
        terminal = Terminal(columns)
        with terminal.display:
            terminal.now = 5.0
            terminal.display.on_tick(metrics())
            (status,) = terminal.lines()
        assert status.split(" · ")[-1] == last


def test_what_another_machine_decodes_shows_no_speed_of_this_one() -> None:
    terminal, remote = Terminal(120), RemoteMetrics()
    remote.pushed(np.full(160_000, 0.1, np.float32))
    remote.stepped(100, 0.5, [])
    remote.lagged(0.7)
    with terminal.display:
        terminal.now = 5.0
        terminal.display.on_tick(remote)
        (status,) = terminal.lines()
    assert status.startswith("▆ lag 0.7 s · 0:10 · ")
    assert "tok/s" not in status
    assert " ms · " not in status.replace("delay 480 ms", "")


def test_words_do_not_break_at_the_edge() -> None:
    terminal = Terminal(40)
    with terminal.display:
        speak(terminal, LATIN * 3)
    words = [word for line in terminal.lines() for word in line.split()]
    assert words == (LATIN * 3).split()


def test_a_notice_stands_between_captions_and_stays() -> None:
    terminal = Terminal(80)
    with terminal.display:
        speak(terminal, "before ")
        terminal.display.notice("Mic is gone; waiting for it")
        speak(terminal, "after ")
    assert terminal.lines() == ["[Mic is gone; waiting for it]", "before after"]


def test_a_long_pause_begins_a_paragraph() -> None:
    terminal = Terminal(80)
    with terminal.display as display:
        display.on_events([TextDelta("one", 1000), TextDelta(" two", 2900)])
        display.on_events([TextDelta(" three", 5000)])
    assert terminal.lines() == ["one two", "three"]


def test_a_terminal_is_not_sent_escapes_that_the_model_said() -> None:
    terminal = Terminal(80)
    with terminal.display as display:
        display.on_events([TextDelta("\x1b[2J\x1b]0;title\x07[bold]text", 100)])
    assert terminal.lines() == ["[2J]0;title[bold]text"]


def test_a_window_that_gets_narrower_keeps_the_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal(80)
    with terminal.display as display:
        display.on_events([TextDelta(LATIN[:70], 100)])
        terminal.console.width = 30
        display.on_events([TextDelta("end", 200)])
    assert joined(terminal.lines()) == joined([LATIN[:70], "end"])


def word(text: str) -> WordFinal:
    return WordFinal(Word(text, 0, 80), 240)


def test_a_dictionary_of_final_words_is_shown_if_there_is_one() -> None:
    terminal = Terminal(80, has_final_words=True)
    with terminal.display as display:
        display.on_events([TextDelta(" em el ex", 80), word("MLX"), word("runs")])
    assert terminal.lines() == ["MLX runs"]


def test_a_word_that_is_confirmed_is_not_shown_twice_before_the_next_draft() -> None:
    """A server's messages come one by one."""
    terminal = Terminal(80)
    with terminal.display as display:
        terminal.now = 5.0
        display.on_tick(metrics())
        display.on_events([DraftChanged(" turn on", 80)])
        display.on_events([TextDelta(" turn", 480)])
        assert terminal.lines()[0] == "turn on"
        display.on_events([DraftChanged(" on the", 560)])
        assert terminal.lines()[0] == "turn on the"


def test_plain_text_is_what_was_said_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with PlainDisplay() as display:
        display.on_events([TextDelta(" one", 80), word("one")])
        display.on_tick(metrics())
        display.notice("the device is gone")
        display.on_events([word("two"), Finished(240, 3)])
    captured = capsys.readouterr()
    assert captured.out == "one two\n"
    assert captured.err == "voxmlx: the device is gone\n"


def test_plain_text_that_breaks_off_ends_its_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with contextlib.suppress(ServerError), PlainDisplay() as display:
        display.on_events([word("one")])
        raise ServerError("gone")
    assert capsys.readouterr().out == "one\n"
