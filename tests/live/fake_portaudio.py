"""A PortAudio of which tests say what is plugged in and what it hears."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

__all__ = ["FakeError", "FakePortAudio", "FakeStream"]


class FakeError(Exception):
    """sounddevice.PortAudioError."""


class FakeStream:
    """An open input; `hear` calls back as PortAudio's thread would."""

    def __init__(self, portaudio: "FakePortAudio", options: dict[str, Any]) -> None:
        self.options = options
        self.is_open = True
        self.is_running = False
        self._portaudio = portaudio
        self._callback: Callable[..., None] = options["callback"]

    def start(self) -> None:
        if self._portaudio.is_busy:
            raise FakeError("Device unavailable [PaErrorCode -9985]")
        self.is_running = True

    def stop(self) -> None:
        self.is_running = False

    def close(self) -> None:
        self.is_open = self.is_running = False

    def record(self, samples: np.ndarray, *, has_overflowed: bool = False) -> None:
        """One block at the device's rate, in PortAudio's own buffer.

        Samples [n] are heard on every input, [n, channels] each on its own.
        """
        status = SimpleNamespace(input_overflow=True) if has_overflowed else None
        if self.is_running:
            n = self.options["channels"]
            each = samples if samples.ndim == 2 else samples[:, None].repeat(n, axis=1)
            buffer = each[:, :n].astype(np.float32)
            self._callback(buffer, len(samples), None, status)
            buffer[:] = np.nan  # PortAudio uses it again


class FakePortAudio:
    """Stands in for the module sounddevice."""

    PortAudioError: type[Exception] = FakeError

    def __init__(self, **rates: float) -> None:
        """Input devices and their default rates; there is an output too.

        What follows # tells devices of one name apart, for the tests alone.
        """
        self.plugged = {"Speakers": 48_000.0, **rates}
        self._seen = dict(self.plugged)
        self.is_busy = False
        self.n_starts = 1
        self.streams: list[FakeStream] = []
        self.n_inputs = 2

    def query_devices(self, device: Any = None, kind: Any = None) -> Any:
        found = [
            {
                "index": index,
                "name": name.partition("#")[0],
                "default_samplerate": rate,
                "max_input_channels": 0 if name == "Speakers" else self.n_inputs,
            }
            for index, (name, rate) in enumerate(self._seen.items())
        ]
        return found if kind is None else found[1]

    def InputStream(self, **options: Any) -> FakeStream:
        self.streams.append(FakeStream(self, options))
        return self.streams[-1]

    def unplug(self, name: str) -> None:
        """From now on the device is silent; seen to be gone after a new start."""
        del self.plugged[name]
        self.streams[-1].is_running = False

    def plug(self, name: str, rate: float, place: int) -> None:
        """Put a device in `place`; seen after a new start."""
        devices = [*self.plugged.items()]
        devices.insert(place, (name, rate))
        self.plugged = dict(devices)

    def _terminate(self) -> None:
        self._seen = {}
        self.n_starts += 1

    def look(self) -> None:
        """See what is plugged in, as after a new start."""
        self._seen = dict(self.plugged)

    def _initialize(self) -> None:
        self.look()
