"""A menu bar without a Mac: what examples/menu_bar.py uses of the module rumps."""

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["App", "MenuItem", "Timer", "quit_application", "quits", "timers"]

quits: list[object] = []
timers: list["Timer"] = []


class MenuItem:
    """An entry of a menu, which may be a menu itself."""

    def __init__(
        self, title: str, callback: Callable[["MenuItem"], Any] | None = None
    ) -> None:
        self.title = title
        self.callback = callback
        self.state = 0
        self.items: list[MenuItem] = []

    def add(self, menuitem: "MenuItem") -> None:
        self.items.append(menuitem)

    def click(self) -> None:
        assert self.callback is not None
        self.callback(self)


class Timer:
    """Calls back when a test says so."""

    def __init__(self, callback: Callable[["Timer"], Any], interval: float) -> None:
        self.callback = callback
        self.interval = interval
        self.is_started = False
        timers.append(self)

    def start(self) -> None:
        self.is_started = True

    def tick(self) -> None:
        assert self.is_started
        self.callback(self)


class App:
    """An application that does nothing by itself."""

    menu: Sequence[MenuItem | None]

    def __init__(
        self, name: str, title: str | None = None, quit_button: str | None = "Quit"
    ) -> None:
        self.name = name
        self.title = title
        self.quit_button = quit_button


def quit_application(sender: object = None) -> None:
    quits.append(sender)
