"""Live captions in the menu bar of a Mac, with rumps (`pip install rumps`).

    python examples/menu_bar.py --demo

The program starts `voxmlx live --format jsonl` and passes its own arguments on. It
shows the last words beside a symbol. The menu pauses the microphone, which macOS shows
by its orange dot, chooses the delay, and ends. docs/worker.md describes all lines and
commands.
"""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import rumps  # pyright: ignore[reportMissingModuleSource] -- it is for Macs

SCHEMA = 1
DELAYS_MS = (240, 480, 960, 2400)

# What fits beside the symbol, and how often it is drawn.
MAX_CHARS = 40
DRAW_EVERY_S = 0.1

LISTENING, PAUSED, STARTING = "🎙", "⏸", "…"


class Worker:
    """The command that listens: events come from it, commands go to it."""

    def __init__(self, command: Sequence[str]) -> None:
        # A process of its own: if this program ends in any way, the worker's standard
        # input ends, and it closes the microphone.
        self._process = subprocess.Popen(
            [*command, "--format", "jsonl"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._events.put(json.loads(line))
        self._events.put({"type": "exit", "status": self._process.wait()})

    def take(self) -> list[dict[str, Any]]:
        """Return the events since the last call."""
        return [self._events.get() for _ in range(self._events.qsize())]

    def send(self, **command: Any) -> None:
        """Send a command, unless the worker has gone; its last event says so."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # ValueError: it is closed
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """End the worker: it says its last words, and closes the microphone."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(timeout=30)


class MenuBar(rumps.App):
    """The last words in the menu bar, and a menu."""

    def __init__(self, command: Sequence[str]) -> None:
        super().__init__("Captions", title=STARTING, quit_button=None)
        self._worker = Worker(command)
        self._symbol = STARTING
        self._text = self._draft = ""
        self._pause = rumps.MenuItem("Pause", callback=self._pause_or_resume)
        self._delays = {
            delay_ms: rumps.MenuItem(f"{delay_ms} ms", callback=self._change_delay)
            for delay_ms in DELAYS_MS
        }
        delay = rumps.MenuItem("Delay")
        for item in self._delays.values():
            delay.add(item)
        self._message = rumps.MenuItem("Loading the model")
        quit_item = rumps.MenuItem("Quit", callback=self._quit)
        self.menu = [self._pause, delay, self._message, None, quit_item]
        # Only this thread may touch the menu, so it asks for events.
        self._timer = rumps.Timer(self._draw, DRAW_EVERY_S)
        self._timer.start()

    def _draw(self, _: rumps.Timer) -> None:
        for event in self._worker.take():
            self._observe(event)
        shown = (self._text + self._draft)[-MAX_CHARS:]
        self.title = f"{self._symbol} {shown.strip()}".strip()

    def _observe(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "stream" if event["schema"] != SCHEMA:
                self._message.title = f"voxmlx has schema {event['schema']}"
                self._worker.close()
            case "stream":
                self._symbol = LISTENING
                self._message.title = f"{event['source']}, {event['model']}"
                self._check_delay(event["delay_ms"])
            case "text_delta":
                self._text = (self._text + event["text"])[-MAX_CHARS:]
            case "draft":
                self._draft = event["text"]
            case "paused":
                self._symbol = PAUSED
                self._pause.title = "Resume"
            case "resumed":
                self._symbol = LISTENING
                self._pause.title = "Pause"
            case "delay":
                self._check_delay(event["delay_ms"])
            case "notice" | "error":
                self._message.title = event["message"]
            case "exit":
                self._symbol = STARTING
                self._message.title = f"voxmlx has ended with status {event['status']}"
            case _:
                pass

    def _check_delay(self, delay_ms: int | None) -> None:
        for one, item in self._delays.items():
            item.state = int(one == delay_ms)

    def _pause_or_resume(self, item: rumps.MenuItem) -> None:
        self._worker.send(type="pause" if item.title == "Pause" else "resume")

    def _change_delay(self, item: rumps.MenuItem) -> None:
        self._worker.send(type="delay", delay_ms=int(item.title.split()[0]))

    def _quit(self, _: rumps.MenuItem) -> None:
        self._worker.close()
        rumps.quit_application()


if __name__ == "__main__":
    MenuBar([sys.executable, "-m", "voxmlx.live", *sys.argv[1:]]).run()
