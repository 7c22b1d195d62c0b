"""Input devices by PortAudio: found, listed, and what to do about a silent one."""

import os
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from voxmlx.audio.channels import ChannelChooser
from voxmlx.errors import DeviceError

__all__ = [
    "PortAudio",
    "describe_devices",
    "devices_named",
    "find_device",
    "import_portaudio",
    "is_loopback",
    "listed",
    "mute_advice",
    "start_anew",
]

# Devices that no microphone stands behind, by a part of their names.
_LOOPBACKS = ("blackhole", "soundflower", "loopback", "monitor of", "vb-cable")

# What TERM_PROGRAM calls programs that macOS lists under another name.
_PROGRAMS = {
    "Apple_Terminal": "Terminal",
    "iTerm.app": "iTerm",
    "vscode": "Visual Studio Code",
    "WarpTerminal": "Warp",
    "ghostty": "Ghostty",
    "WezTerm": "WezTerm",
}


class PortAudio(Protocol):
    """The part of the module sounddevice that is used here."""

    PortAudioError: type[Exception]

    def query_devices(self, device: Any = None, kind: Any = None) -> Any: ...
    def InputStream(self, **options: Any) -> Any: ...
    def _terminate(self) -> None: ...
    def _initialize(self) -> None: ...


def import_portaudio() -> PortAudio:
    """Return the module sounddevice. Raises DeviceError where PortAudio is missing."""
    try:
        # A local import: it loads PortAudio, which may not be there.
        import sounddevice
    except OSError:
        raise DeviceError(
            "PortAudio is not installed, so no microphone can be heard; install it with "
            "brew install portaudio (macOS) or apt-get install libportaudio2 (Debian), "
            "or hear a file with --input FILE"
        ) from None
    return sounddevice  # pyright: ignore[reportReturnType] -- a module


def start_anew(portaudio: PortAudio) -> None:
    """Let PortAudio see devices that came or went. The streams of all devices end."""
    portaudio._terminate()  # pyright: ignore[reportPrivateUsage] -- no other way
    portaudio._initialize()  # pyright: ignore[reportPrivateUsage]


def describe_devices(portaudio: PortAudio) -> list[str]:
    """Return one line for each input device: its number, name, rate and number of inputs."""
    return [
        f"{device['index']}: {device['name']} ({device['default_samplerate']:.0f} Hz, "
        f"{n} input{'s' * (n > 1)})"
        for device in _inputs(portaudio)
        if (n := device["max_input_channels"])
    ]


def _inputs(portaudio: PortAudio) -> list[dict[str, Any]]:
    devices: Sequence[dict[str, Any]] = portaudio.query_devices()
    return [device for device in devices if device["max_input_channels"] > 0]


def devices_named(portaudio: PortAudio, name: str) -> list[dict[str, Any]]:
    """Return PortAudio's records of all input devices of one name, in its order."""
    return [device for device in _inputs(portaudio) if device["name"] == name]


def find_device(portaudio: PortAudio, device: str | int | None) -> dict[str, Any]:
    """Return PortAudio's record of an input device, without opening it.

    `device` is a number or a part of a name; None is the system's default. Raises
    DeviceError, which lists the devices there are.
    """
    inputs = _inputs(portaudio)
    if not inputs:
        raise DeviceError(
            "there is no microphone; plug one in, or hear a file with --input FILE"
        )
    if device is None:
        try:
            return portaudio.query_devices(None, "input")
        except (ValueError, portaudio.PortAudioError):
            return inputs[0]
    if isinstance(device, int):
        found = [one for one in inputs if one["index"] == device]
    else:
        found = devices_named(portaudio, device) or [
            one for one in inputs if device.casefold() in one["name"].casefold()
        ]
    if len(found) == 1:
        return found[0]
    problem = "matches several" if found else "is no input device"
    raise DeviceError(f"--device {device} {problem}; there are {listed(portaudio)}")


def is_loopback(name: str) -> bool:
    """Return whether a device carries what other programs play, by its name."""
    return any(word in name.casefold() for word in _LOOPBACKS)


def listed(portaudio: PortAudio) -> str:
    """Return all input devices as one phrase."""
    return ", ".join(describe_devices(portaudio))


def mute_advice(name: str, chooser: ChannelChooser) -> str:
    """Return what to do about a device that delivers only zeros, by the likely cause."""
    if chooser.loud is not None:
        return (
            f"input {chooser.current} of {name} delivers only zeros, but input "
            f"{chooser.loud} carries sound: choose it with --channel {chooser.loud}"
        )
    zeros = f"{name} delivers only zeros"
    if is_loopback(name):
        return (
            f"{zeros}: it carries what other programs play into it; make it their "
            "output, or choose a microphone with --device"
        )
    if sys.platform == "darwin" and "SSH_CONNECTION" in os.environ:
        return (
            f"{zeros}: over SSH macOS gives no sound; start the command in a terminal "
            "window of the Mac itself"
        )
    if sys.platform == "darwin":
        program = _PROGRAMS.get(os.environ.get("TERM_PROGRAM", ""), "this terminal")
        return (
            f"{zeros}: allow {program} the microphone in System Settings > Privacy & "
            "Security > Microphone, then start again"
        )
    if chooser.n_channels > 1:
        return (
            f"{zeros} on all its {chooser.n_channels} inputs: is it muted, or nothing "
            "plugged in?"
        )
    return f"{zeros}: is it muted?"
