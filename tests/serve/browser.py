"""Chromium without a window, whose microphone hears a file, by its DevTools protocol."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.serve.loopback import PATIENCE_S, until

__all__ = ["Page", "browsing"]


class Page:
    """One page, and what a person at it can do and see."""

    def __init__(self, websocket: ClientConnection) -> None:
        self._websocket = websocket
        self._n_calls = 0
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a DevTools method."""
        self._n_calls += 1
        request = {"id": self._n_calls, "method": method, "params": parameters}
        self._websocket.send(json.dumps(request))
        while True:
            message = json.loads(self._websocket.recv(timeout=PATIENCE_S))
            if message.get("id") == self._n_calls:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        entry = message.get("params", {}).get("entry", {})
        is_error = message["method"] == "Runtime.exceptionThrown"
        if is_error or entry.get("level") == "error":
            self.errors.append(json.dumps(message["params"]))

    def value(self, expression: str) -> Any:
        """Of JavaScript; promises are waited for."""
        result = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,  # a page that nobody touches gets no sound
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def wait(self, expression: str) -> None:
        """Until JavaScript finds it true."""
        end = time.monotonic() + PATIENCE_S
        while not self.value(expression):
            assert time.monotonic() < end, (expression, self.errors)
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """A key of the keyboard."""
        code = {"Tab": 9, "Enter": 13, "Space": 32}[key]
        text = {"Tab": "", "Enter": "\r", "Space": " "}[key]
        typed = {"key": " " if key == "Space" else key, "code": key}
        typed |= {"windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **typed)

    def show_in(self, scheme: str) -> None:
        """In `light` or `dark` colours."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", mobile=False, **size)

    def screenshot(self, path: Path) -> None:
        image = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(image))


@contextmanager
def browsing(
    heard: Path | None, home: Path, *, is_endless: bool = False
) -> Iterator[Page]:
    """A new page; the microphone hears the WAV file `heard` once, or again and again.

    Once is for all streams of the page together. Without a file there is no microphone.
    Skips where there is no browser.
    """
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no browser: apt-get install chromium")
    microphone: list[str] = []
    if heard is not None:
        file = f"{heard}{'' if is_endless else '%noloop'}"
        microphone = [
            *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
            f"--use-file-for-fake-audio-capture={file}",
        ]
    process = subprocess.Popen(
        [
            program,
            *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"),
            *("--no-first-run", "--disable-gpu", "--disable-background-networking"),
            f"--user-data-dir={home}",
            "--remote-debugging-port=0",
            *microphone,
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        active = home / "DevToolsActivePort"
        until(lambda: active.exists() and "\n" in active.read_text())
        assert process.poll() is None
        port = active.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            targets = json.load(answer)
        (url,) = [t["webSocketDebuggerUrl"] for t in targets if t["type"] == "page"]
        with connect(url, max_size=None, proxy=None) as websocket:
            yield Page(websocket)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
