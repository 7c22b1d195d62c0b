"""Microphones that are open at once: a device that was lost is brought back.

PortAudio sees devices that came only when it is started anew, and that ends the streams
of all devices. So another process looks first, and nobody is disturbed while the device
is away:

    whole     all devices are there
    looking   one is lost, and another process lists the devices, every few seconds
    restart   the lost one is listed: all others pause, PortAudio starts anew, all open

The others miss what is said in the restart, some tenths of a second. A device that is
listed but cannot be opened costs them that at most once a minute, after a few tries.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from voxmlx.audio.devices import PortAudio, start_anew
from voxmlx.audio.microphone import Microphone

__all__ = ["DeviceGroup", "DeviceLook", "LookElsewhere"]

_LOOK_EVERY_S = 3.0

# So long a device that cannot be opened is let be, at first and at most.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 3.0, 60.0

# A process that hangs in a driver may not even die of SIGKILL.
_GIVE_UP_S = 10.0

_LISTING = """\
import json, sounddevice
found = [d["name"] for d in sounddevice.query_devices() if d["max_input_channels"] > 0]
print(json.dumps(found))
"""


class DeviceLook(Protocol):
    """A look at which input devices there are; it takes a while, and nobody waits."""

    def start(self) -> None: ...
    def names(self) -> Counter[str] | None: ...
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

    def names(self) -> Counter[str] | None:
        """Return how many devices of each name were found, None while it still looks."""
        process = self._process
        if process is None:
            return Counter()
        if process.poll() is None:
            return None
        self._process = None
        listed, _ = process.communicate()
        return Counter(json.loads(listed) if process.returncode == 0 else ())

    def close(self) -> None:
        """Look no more. Returns after 10 s even if the look cannot be ended."""
        process, self._process = self._process, None
        if process is not None and process.stdout is not None:
            process.kill()
            process.stdout.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GIVE_UP_S)


@dataclass(slots=True, eq=False)
class _Member:
    """A microphone, and what is known of its device while it is lost."""

    microphone: Microphone
    on_restart: Callable[[], None]
    n_needed: int  # as many devices of its name are there when it is back
    wait_s: float = _FIRST_WAIT_S
    not_before: float = 0.0  # when it may be opened, after it could not be

    def is_listed(self, names: Counter[str], n_members: int) -> bool:
        """Return whether it is back; `n_members` microphones have its name."""
        n = names[self.microphone.name]
        if n >= self.n_needed:
            return True
        self.wait_s, self.not_before = _FIRST_WAIT_S, 0.0
        # Another of its name may have gone for good, which nobody here had open.
        self.n_needed = min(self.n_needed, max(n + 1, n_members))
        return False

    def bring_back(self, now: float) -> None:
        """Open its device; where that fails, let it be for twice as long as before."""
        if self.microphone.bring_back():
            self.n_needed = self.microphone.n_alike
            self.wait_s, self.not_before = _FIRST_WAIT_S, 0.0
        else:
            self.not_before = now + self.wait_s
            self.wait_s = min(2 * self.wait_s, _LONGEST_WAIT_S)


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
        self._members: list[_Member] = []
        self._is_looking = False
        self._looked_at = clock()

    def add(self, microphone: Microphone, on_restart: Callable[[], None]) -> None:
        """Care for a microphone; `on_restart` is called when it has missed sound."""
        self._members.append(_Member(microphone, on_restart, microphone.n_alike))

    def tend(self) -> None:
        """Do what is due; to be called whenever sound is read."""
        lost = [one for one in self._members if one.microphone.is_lost]
        if not lost:
            return
        now = self._clock()
        if not self._is_looking:
            if now - self._looked_at >= _LOOK_EVERY_S:
                self._look.start()
                self._is_looking = True
            return
        names = self._look.names()
        if names is None:
            return
        self._is_looking = False
        self._looked_at = now
        n_members = Counter(one.microphone.name for one in self._members)
        listed = [
            one for one in lost if one.is_listed(names, n_members[one.microphone.name])
        ]
        if any(now >= one.not_before for one in listed):
            self._restart(listed, now)

    def close(self) -> None:
        """End what looks."""
        self._look.close()

    def _restart(self, listed: list[_Member], now: float) -> None:
        others = [one for one in self._members if not one.microphone.is_lost]
        for one in others:
            one.microphone.pause()
        start_anew(self._portaudio)
        for one in listed:
            one.bring_back(now)
        for one in others:
            one.microphone.resume()
        for one in self._members:
            one.on_restart()
