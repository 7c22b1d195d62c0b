"""Microphones that are open at once: a device that was lost is brought back.

PortAudio sees devices that came only when it is started anew, and that ends the streams
of all devices. So another process looks first, and nobody is disturbed while the device
is away:

    whole     all devices are there
    looking   one is lost, and another process lists the devices, every few seconds
    restart   the lost one is listed: all others pause, PortAudio starts anew, all open

The others miss what is said in the restart, some tenths of a second.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Protocol

from voxmlx.audio.devices import PortAudio
from voxmlx.audio.microphone import Microphone

__all__ = ["DeviceGroup", "DeviceLook", "LookElsewhere"]

_LOOK_EVERY_S = 3.0

_LISTING = """\
import json, sounddevice
found = [d["name"] for d in sounddevice.query_devices() if d["max_input_channels"] > 0]
print(json.dumps(found))
"""


class DeviceLook(Protocol):
    """A look at which input devices there are; it takes a while, and nobody waits."""

    def start(self) -> None: ...
    def names(self) -> frozenset[str] | None: ...
    def close(self) -> None: ...


class LookElsewhere:
    """Lists the names of input devices by a process of its own.

    A frozen application cannot start one. There no device is found.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin to look."""
        if not getattr(sys, "frozen", False):
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LISTING],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the command
            )

    def names(self) -> frozenset[str] | None:
        """Return the devices that were found, None while it still looks."""
        process = self._process
        if process is None:
            return frozenset()
        if process.poll() is None:
            return None
        self._process = None
        listed, _ = process.communicate()
        return frozenset(json.loads(listed)) if process.returncode == 0 else frozenset()

    def close(self) -> None:
        """Look no more."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


class DeviceGroup:
    """Brings back lost devices of several microphones. From the thread that reads."""

    def __init__(
        self,
        portaudio: PortAudio,
        look: DeviceLook | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._portaudio = portaudio
        self._look = look or LookElsewhere()
        self._clock = clock
        self._members: list[tuple[Microphone, Callable[[], None]]] = []
        self._is_looking = False
        self._looked_at = clock()

    def add(self, microphone: Microphone, on_restart: Callable[[], None]) -> None:
        """Care for a microphone; `on_restart` is called when it has missed sound."""
        self._members.append((microphone, on_restart))

    def tend(self) -> None:
        """Do what is due; to be called whenever sound is read."""
        lost = [one for one, _ in self._members if one.is_lost]
        if not lost:
            return
        if not self._is_looking:
            if self._clock() - self._looked_at >= _LOOK_EVERY_S:
                self._look.start()
                self._is_looking = True
            return
        names = self._look.names()
        if names is None:
            return
        self._is_looking = False
        self._looked_at = self._clock()
        if any(microphone.name in names for microphone in lost):
            self._restart(lost)

    def close(self) -> None:
        """End what looks."""
        self._look.close()

    def _restart(self, lost: list[Microphone]) -> None:
        others = [one for one, _ in self._members if one not in lost]
        for microphone in others:
            microphone.pause()
        self._portaudio._terminate()  # pyright: ignore[reportPrivateUsage] -- no other way
        self._portaudio._initialize()  # pyright: ignore[reportPrivateUsage]
        for microphone in lost:
            microphone.bring_back()
        for microphone in others:
            microphone.resume()
        for _, on_restart in self._members:
            on_restart()
