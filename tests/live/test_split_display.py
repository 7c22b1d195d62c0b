"""What a person sees of several channels: labelled lines in order, one status line."""

import io

import numpy as np
import pyte
import pytest
from rich.console import Console

from tests.spoken import spoken
from voxmlx.events import (
    ChannelEvent,
    DraftChanged,
    Event,
    Finished,
    SoundWarning,
    TokenDecoded,
    UtteranceEnd,
    WordFinal,
)
from voxmlx.live.split_display import PlainSplitDisplay, TerminalSplitDisplay
from voxmlx.live.stream_metrics import StreamMetrics

LABELS = ["me", "them"]


class Terminal:
    """A terminal of so many columns that a display draws on."""

    def __init__(self, columns: int, *, has_drafts: bool = True) -> None:
        self.screen = pyte.HistoryScreen(columns, 12, history=1000)
        self._stream = pyte.Stream(self.screen)
        self._file = io.StringIO()
        self.now = 0.0
        console = Console(
            file=self._file,
            width=columns,
            height=12,
            force_terminal=True,
            color_system="truecolor",
            legacy_windows=False,
        )
        self.display = TerminalSplitDisplay(
            LABELS, 480, has_drafts=has_drafts, console=console, now=lambda: self.now
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


def said(channel: int, text: str, start_ms: int) -> list[ChannelEvent]:
    """Words, and the pause that ends them."""
    words = spoken(text, start_ms=start_ms)
    end_ms = words[-1].end_ms
    events: list[Event] = [WordFinal(word, word.end_ms + 300) for word in words]
    events.append(UtteranceEnd(start_ms, end_ms, end_ms + 900))
    return [ChannelEvent(channel, event) for event in events]


def at(channel: int, time_ms: int) -> ChannelEvent:
    """A blank: nothing is known of the channel's last 3 s."""
    return ChannelEvent(channel, TokenDecoded(32, time_ms // 80 - 1, time_ms))


def finished(channel: int) -> ChannelEvent:
    return ChannelEvent(channel, Finished(20_000, 250))


def metrics(level: float, lag_s: float) -> StreamMetrics:
    found = StreamMetrics()
    found.pushed(np.full(160_000, level, np.float32))
    found.stepped(100, 0.5, [lag_s] * 100)
    return found


def test_both_sides_grow_and_complete_lines_stay_in_order_of_time() -> None:
    terminal = Terminal(60)
    with terminal.display as display:
        display.on_events(said(2, "how are you", 1000)[:2])
        display.on_events(said(1, "fine", 1500))
        assert terminal.lines() == ["them: how are", "me: fine"]
        display.on_events([at(2, 6000)])  # "how" may be the beginning of more
        assert terminal.lines() == ["them: how are", "me: fine"]
        display.on_events(said(2, "how are you", 1000)[2:])
        display.on_events([at(1, 6000), at(2, 6000)])
        assert terminal.lines() == ["them: how are you", "me: fine"]
        display.on_events(said(1, "and you", 7000)[:1])
        assert terminal.lines()[2:] == ["me: and"]
    assert terminal.lines() == ["them: how are you", "me: fine", "me: and"]


def test_what_is_not_certain_stands_dim_and_is_replaced() -> None:
    terminal = Terminal(60)
    with terminal.display as display:
        display.on_events(said(1, "turn it", 1000)[:2])
        display.on_events([ChannelEvent(1, DraftChanged(" of", 1700))])
        assert terminal.lines() == ["me: turn it of"]
        display.on_events([ChannelEvent(2, DraftChanged(" turn", 1700))])
        assert terminal.lines() == ["me: turn it of", "them: turn"]
        display.on_events([ChannelEvent(2, DraftChanged("", 2000))])
        display.on_events([ChannelEvent(1, DraftChanged(" off", 2000))])
        assert terminal.lines() == ["me: turn it off"]
    plain = Terminal(60, has_drafts=False)
    with plain.display as display:
        display.on_events([ChannelEvent(1, DraftChanged(" of", 1700))])
        assert plain.lines() == []


def test_the_status_line_tells_level_and_lag_of_each() -> None:
    terminal = Terminal(120)
    with terminal.display as display:
        terminal.now = 5.0
        display.on_tick([metrics(0.1, 0.1), metrics(0.0, 0.4)])
        (status,) = terminal.lines()
    assert status.startswith(
        "me ▆ lag 0.1 s · them ∅ lag 0.4 s · 0:10 · 200 tok/s of 12.5 · 5/5 ms"
    )
    assert "delay 480 ms" in status


def test_lines_that_grow_never_take_more_room_than_the_window_has() -> None:
    terminal = Terminal(20)
    with terminal.display as display:
        for i in range(80):
            words = spoken("word", start_ms=1000 + 300 * i)
            display.on_events([ChannelEvent(1, WordFinal(words[0], 0))])
            assert sum("word" in line for line in terminal.screen.display) <= 11
            terminal.lines()
    assert " ".join(terminal.lines()).count("word") == 80


def test_a_terminal_is_not_sent_escapes_that_a_model_said() -> None:
    terminal = Terminal(80)
    with terminal.display as display:
        display.on_events([*said(1, "\x1b[2Jtext", 0), finished(1), finished(2)])
    assert terminal.lines() == ["me: [2Jtext"]


def test_plain_lines_have_labels_and_are_in_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with PlainSplitDisplay(LABELS) as display:
        display.on_events([*said(2, "how are you", 1000), at(1, 3000), at(2, 3000)])
        assert capsys.readouterr().out == ""
        display.on_events([at(1, 4000), at(2, 4000)])
        assert capsys.readouterr().out == "them: how are you\n"
        display.on_events([SoundWarning("damaged", "odd bytes", 1)])
        assert capsys.readouterr().err == "voxmlx: warning: odd bytes\n"
        display.on_events(said(1, "fine", 5000))
    assert capsys.readouterr().out == "me: fine\n"
