"""Several sources of sound on one clock: devices, or the channels of a file."""

import argparse
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from voxmlx.audio.block_queue import Block
from voxmlx.audio.device_group import DeviceGroup
from voxmlx.audio.devices import (
    PortAudio,
    find_device,
    import_portaudio,
    is_loopback,
)
from voxmlx.audio.file_source import FileSource
from voxmlx.audio.microphone import Microphone
from voxmlx.audio.steady_sound import SteadySound
from voxmlx.errors import DeviceError
from voxmlx.text.labels import distinct_labels

__all__ = [
    "ChannelSource",
    "DeviceSource",
    "channel_sources",
    "device_labels",
    "device_of",
    "find_devices",
    "open_devices",
]

# Who is heard where one of two devices carries what the computer plays.
_NEAR, _FAR = "me", "them"


def device_of(name: str) -> str | int:
    """Return a device as the Microphone takes it: a number, or a part of a name."""
    return int(name) if name.isdecimal() else name


def find_devices(portaudio: PortAudio, names: Sequence[str]) -> list[str]:
    """Return the full names of devices, without opening them.

    Raises DeviceError for one that is missing, and for two that are the same.
    """
    found = [find_device(portaudio, device_of(name)) for name in names]
    for i, device in enumerate(found):
        for j in range(i):
            if device["index"] == found[j]["index"]:
                raise DeviceError(
                    f"--device {names[j]} and --device {names[i]} are both "
                    f"{device['name']}; give each device once"
                )
    return [device["name"] for device in found]


def device_labels(names: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return a label for each device: `labels`, and for the others what they are.

    A microphone and a device that carries what the computer plays are "me" and "them".
    Others have their own names, with numbers where two are the same.
    """
    are_far = [is_loopback(name) for name in names]
    chosen = list(names)
    if sorted(are_far) == [False, True]:
        chosen = [_FAR if is_far else _NEAR for is_far in are_far]
    chosen[: len(labels)] = labels
    return distinct_labels(chosen)


class DeviceSource:
    """A device among several: a Microphone whose sound is put on the computer's clock."""

    def __init__(
        self, microphone: Microphone, group: DeviceGroup, origin: float
    ) -> None:
        """Begin stream time at `origin`, in seconds of the monotonic clock."""
        self.microphone = microphone
        self.name = microphone.name
        self._group = group
        self._sound = SteadySound(origin)
        self.is_ended = self._is_stopped = False
        self._paused_at = 0.0
        group.add(microphone, self._sound.note_gap)

    def read(self, timeout_s: float) -> list[Block]:
        """Return the blocks since the last call; wait if there are none."""
        self._group.tend()
        blocks = [self._sound.push(block) for block in self.microphone.read(timeout_s)]
        if self.microphone.is_ended and not self.is_ended:
            self.is_ended = True
            blocks.append(Block(self._sound.flush(), time.monotonic()))
        return blocks

    def pause(self) -> None:
        """Close the device until `resume`; stream time stands still meanwhile.

        After `stop` neither does anything.
        """
        if self._is_stopped:
            return
        self.microphone.pause()
        self._paused_at = time.monotonic()

    def resume(self) -> None:
        """Open the device again."""
        if self._is_stopped:
            return
        self._sound.hold(time.monotonic() - self._paused_at)
        self.microphone.resume()
        self._sound.note_gap()  # it takes a moment to open

    def stop(self) -> None:
        """Hear nothing more; what was heard can still be read."""
        self._is_stopped = True
        self.microphone.stop()

    def close(self) -> None:
        self.microphone.close()
        self._group.close()


def open_devices(
    arguments: argparse.Namespace,
    portaudio: PortAudio | None,
    notify: Callable[[str], None],
    on_open: Callable[[DeviceSource], object],
) -> list[DeviceSource]:
    """Open all devices of the arguments; `on_open` gets each as soon as it is open.

    Stream time begins before the first is opened. Raises DeviceError.
    """
    origin = time.monotonic()
    portaudio = portaudio or import_portaudio()
    group = DeviceGroup(portaudio)
    sources: list[DeviceSource] = []
    for name in arguments.devices:
        microphone = Microphone(
            device_of(name),
            notify,
            channel=arguments.channel,
            is_alone=False,
            portaudio=portaudio,
        )
        sources.append(DeviceSource(microphone, group, origin))
        on_open(sources[-1])
    return sources


class ChannelSource:
    """One channel of a file whose channels are heard apart."""

    def __init__(self, file: FileSource, index: int, all_of_it: "_Parted") -> None:
        self.name = file.name
        self._file = file
        self._index = index
        self._all = all_of_it

    @property
    def is_ended(self) -> bool:
        return self._file.is_ended and not self._all.waiting[self._index]

    def read(self, timeout_s: float) -> list[Block]:
        """Return the blocks since the last call; wait if there are none."""
        waiting = self._all.waiting[self._index]
        if not waiting and not self._file.is_ended:
            self._all.push(self._file.read(timeout_s))
        blocks = list(waiting)
        waiting.clear()
        return blocks

    def pause(self) -> None:
        """Read no more of the file until `resume`."""
        self._file.pause()

    def resume(self) -> None:
        """Go on where `pause` has ended."""
        self._file.resume()

    def stop(self) -> None:
        """Hear nothing more; what was heard can still be read."""
        self._file.stop()

    def close(self) -> None:
        self._file.close()


class _Parted:
    """Blocks of a file, by channel, until each channel has been read."""

    def __init__(self, n_channels: int) -> None:
        self.waiting: list[deque[Block]] = [deque() for _ in range(n_channels)]

    def push(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            for index, waiting in enumerate(self.waiting):
                samples = np.ascontiguousarray(block.samples[:, index])
                waiting.append(Block(samples, block.time))


def channel_sources(file: FileSource, n_channels: int) -> Sequence[ChannelSource]:
    """Return a source for each channel of a file that was opened to be split."""
    parted = _Parted(n_channels)
    return [ChannelSource(file, index, parted) for index in range(n_channels)]
