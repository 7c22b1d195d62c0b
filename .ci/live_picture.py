"""Draws docs/live.svg: the terminal of `voxmlx live --demo`, from a real run.

    python .ci/live_picture.py

The command plays the demo's sample in real time in a terminal of its own, and the
picture is what that terminal shows near the end, with a draft behind the text. Needs
the extra `dev`.
"""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

from voxmlx import demo

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "live.svg"
COLUMNS, LINES = 78, 7
DELAYS = ["--delay", "960", "--draft-delay", "160"]
ARGUMENTS = ["--demo", "--input", str(demo.SAMPLE), "--realtime", *DELAYS]

# The words by which the sample is nearly over, the sign of a pause, and how long to wait.
LAST_WORDS = "ten thirty four"
SILENCE = "∅"
PATIENCE_S = 180

# What stands for dim text, which pyte does not know.
DIM = "8a8a8a"


class Terminal(pyte.Screen):
    """A screen that shows dim text in grey."""

    def select_graphic_rendition(self, *attributes: int, private: bool = False) -> None:
        super().select_graphic_rendition(*attributes, private=private)
        if 2 in attributes:
            self.cursor.attrs = self.cursor.attrs._replace(fg=DIM)

    @property
    def has_draft(self) -> bool:
        """Return whether a line begins as text and ends dim, with two words at least."""
        for row in self.buffer.values():
            cells = [row[column] for column in range(self.columns)]
            dim = "".join(cell.data for cell in cells if cell.fg == DIM)
            if cells[0].fg != DIM and len(dim.split()) > 1 and "lag" not in dim:
                return True
        return False


def terminal_of_a_run() -> Terminal:
    """Return the screen with LAST_WORDS on it, at a moment of sound."""
    screen = Terminal(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    main, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "voxmlx.live", *ARGUMENTS],
        stdin=other,
        stdout=other,
        stderr=other,
        env=os.environ
        | {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(LINES)},
        cwd=ROOT,
    )
    os.close(other)
    end = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < end:
            if select.select([main], [], [], 0.1)[0]:
                stream.feed(os.read(main, 65_536))
            shown = " ".join(" ".join(screen.display).split())
            if LAST_WORDS in shown and SILENCE not in shown and screen.has_draft:
                return screen
        sys.exit(f"{LAST_WORDS!r} were not shown within {PATIENCE_S} s")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        os.close(main)


def styled(screen: pyte.Screen) -> Text:
    """Return the screen's cells as text with their colours."""
    text = Text("$ voxmlx live --demo --delay 960 --draft-delay 160\n")
    for line in range(LINES):
        for column in range(COLUMNS):
            cell = screen.buffer[line][column]
            styles = [name for name in ("bold", "italics") if getattr(cell, name)]
            if re.fullmatch("[0-9a-f]{6}", cell.fg):
                styles.append(f"#{cell.fg}")
            elif cell.fg != "default":
                styles.append(
                    cell.fg.replace("bright", "bright_").replace("brown", "yellow")
                )
            text.append(cell.data, " ".join(styles).replace("italics", "italic"))
        text.append("\n")
    text.rstrip()
    return text


def main() -> None:
    screen = terminal_of_a_run()
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(styled(screen))
    svg = console.export_svg(title="voxmlx live")
    # Without its fonts the picture needs nothing from the network.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    PICTURE.write_text(svg, encoding="utf-8")
    print(PICTURE.relative_to(ROOT))


if __name__ == "__main__":
    main()
