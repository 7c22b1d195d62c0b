"""A microphone by PortAudio -> 16 kHz mono blocks, through trouble with the device."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from voxmlx.audio.block_queue import Block, BlockQueue
from voxmlx.audio.channels import Channel, ChannelChooser
from voxmlx.audio.devices import (
    PortAudio,
    devices_named,
    find_device,
    import_portaudio,
    listed,
    mute_advice,
    start_anew,
)
from voxmlx.audio.resample import Resampler
from voxmlx.config import SAMPLE_RATE
from voxmlx.errors import DeviceError

__all__ = ["Microphone"]

_BLOCKS_PER_SECOND = 100

# Ten minutes of backlog before sound is lost, 115 MB at 48 kHz.
_MAX_WAITING_S = 600.0

# An iterator looks so often whether `stop` was called.
_WAIT_S = 0.1

# A running device calls back every 10 ms; this long without one and it is gone. A
# sound server that changes its latency may hold sound back for 2 s (PulseAudio).
_GONE_AFTER_S = 3.0
_RETRY_EVERY_S = 1.0
# So long it may take to plug a device in again; then the default one will do.
_FALL_BACK_AFTER_S = 5.0

# A room is never as quiet as this many samples of exact zeros.
_MUTE_AFTER_S = 2.0


class Microphone:
    """An input device as a source of sound.

    A device that is unplugged is waited for, then replaced by the default one; the
    time without a device is heard as silence, so that stream time goes on and words
    already spoken come out. `notify` gets a sentence about everything of the kind.
    PortAudio tells devices of one name apart by their order alone. So the order says
    which of them is opened again.

    All inputs of the device are open: macOS hands out the first when one is asked for,
    and a voice may be on the second. One of them is heard, see ChannelChooser.

    `read`, `stop` and `close` are for one thread, and `notify` may be replaced there.
    PortAudio's own thread measures the inputs of each block, and copies the one that is
    heard, or their mean, into a queue. It does nothing else.

    A context manager, and an iterable of float32 samples [n] at 16 kHz.
    """

    is_ended = False

    def __init__(
        self,
        device: str | int | None = None,
        notify: Callable[[str], None] = lambda sentence: None,
        *,
        channel: Channel = None,
        is_alone: bool = True,
        portaudio: PortAudio | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open `device`, a number or a part of a name; None is the system's default.

        `channel` is one of its inputs, from 1, or "mix"; None takes the one that
        carries sound. One that is not `is_alone` in the process leaves it to a
        DeviceGroup to bring a lost device back, and no other device takes its place.
        Raises DeviceError, which lists the devices there are.
        """
        self._portaudio = portaudio or import_portaudio()
        self.notify = notify
        self._clock = clock
        self._channel: Channel = channel
        self._is_alone = is_alone
        self._stream: Any = None
        self._is_stopped = self._is_paused = False
        self._left: list[Block] = []  # what a pause found in the queue
        self._has_overflowed = self._is_overflow_said = False
        self._heard_until = clock()
        self.name = ""
        self._choose(device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield samples as they are heard, until `stop` is called."""
        while not self.is_ended:
            for block in self.read(_WAIT_S):
                yield block.samples

    def read(self, timeout_s: float) -> list[Block]:
        """Return the blocks since the last call; wait if there are none."""
        if self._left:
            left, self._left = self._left, []
            self.is_ended = self._is_stopped and self._stream is None
            return left
        if self._is_paused:
            time.sleep(timeout_s)
            return []
        if self._stream is None:
            return self._read_without_device(timeout_s)
        blocks = self._queue.get(timeout_s)
        if self._has_overflowed and not self._is_overflow_said:
            self._is_overflow_said = True
            self.notify(
                f"the system lost some sound of {self.name} before it came here: this "
                "machine was too busy for a moment"
            )
        if self._queue.n_lost > self._n_lost_said:
            self._n_lost_said = self._queue.n_lost
            self.notify(
                f"more than {_MAX_WAITING_S / 60:.0f} minutes of sound wait to be "
                "decoded; what comes now is lost until there is room"
            )
        if blocks:
            self._heard_until = blocks[-1].time
            self._notice_channel()
            return [self._at_16_khz(block) for block in blocks]
        if self._is_stopped:
            self.is_ended = True
            return [Block(self._resampler.flush(), self._heard_until)]
        if self._clock() - max(self._heard_until, self._opened_at) > _GONE_AFTER_S:
            self._lose_device()
        return []

    def pause(self) -> None:
        """Close the device until `resume`, so that the system shows no recording.

        What was heard can still be read. The time until `resume` is not heard, not even
        as silence. After `stop` it does nothing.
        """
        if self._is_paused or self._is_stopped:
            return
        self._is_paused = True
        if self._stream is not None:
            self._stream.stop()
            self._left += [self._at_16_khz(block) for block in self._queue.get(0)]
            rest = self._resampler.flush()
            self._left += [Block(rest, self._clock())] if len(rest) else []
            self.close()

    def resume(self) -> None:
        """Open the device again; one that is gone is waited for, as ever.

        After `stop` it does nothing.
        """
        if not self._is_paused or self._is_stopped:
            return
        self._is_paused = False
        self._heard_until = self._clock()
        try:
            self._open_again()
        except DeviceError:
            self._lose_device()

    @property
    def is_lost(self) -> bool:
        """Return whether its device has gone, and is waited for."""
        return self._stream is None and not self._is_paused and not self._is_stopped

    @property
    def n_alike(self) -> int:
        """Return how many devices had its name when it was chosen, with itself."""
        return self._n_alike

    def bring_back(self) -> bool:
        """Open the lost device again, if PortAudio has it; return whether it is open."""
        try:
            self._open_again()
        except DeviceError:
            return False
        self.notify(f"{self.name} is back")
        return True

    def stop(self) -> None:
        """Hear nothing more; what was heard can still be read."""
        self._is_stopped = True
        if self._stream is None:
            self.is_ended = not self._left
        else:
            self._stream.stop()

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _choose(self, device: str | int | None) -> None:
        """Open a device, and note which of those of its name it is."""
        found = find_device(self._portaudio, device)
        self._open(found)
        alike = devices_named(self._portaudio, self.name)
        self._n_alike = len(alike)
        self._place = [one["index"] for one in alike].index(found["index"])

    def _open_again(self) -> None:
        """Open the chosen device. Raises DeviceError where none has its name."""
        # A number may mean another device by now, name and order do not.
        alike = devices_named(self._portaudio, self.name)
        if not alike:
            raise DeviceError(f"{self.name} is gone")
        self._open(alike[min(self._place, len(alike) - 1)])

    def _open(self, found: dict[str, Any]) -> None:
        self._rate = round(found["default_samplerate"])
        self._queue = BlockQueue(round(_MAX_WAITING_S * self._rate))
        self._resampler = Resampler(self._rate)
        self._n_lost_said = 0
        self._said_channel = 1
        n_channels: int = found["max_input_channels"]
        channel = self._checked_channel(found["name"], n_channels)
        try:
            self._start(found["index"], ChannelChooser(n_channels, channel))
        except self._portaudio.PortAudioError as error:
            self.close()
            raise DeviceError(
                f"the microphone {found['name']} cannot be opened: {error}; close what "
                f"else uses it, or choose another with --device: "
                f"{listed(self._portaudio)}"
            ) from None
        self.name = found["name"]
        self._opened_at = self._clock()
        self._n_zeros = 0

    def _checked_channel(self, name: str, n_channels: int) -> Channel:
        if not isinstance(self._channel, int) or self._channel <= n_channels:
            return self._channel
        if self.name:  # another device has taken the place of the one that was lost
            return None
        raise DeviceError(
            f"{name} has {n_channels} input{'s' * (n_channels > 1)}, --channel "
            f"{self._channel} is none of them"
        )

    def _start(self, index: int, chooser: ChannelChooser) -> None:
        self._chooser = chooser
        self._stream = self._portaudio.InputStream(
            device=index,
            channels=chooser.n_channels,
            samplerate=self._rate,
            blocksize=self._rate // _BLOCKS_PER_SECOND,
            dtype="float32",
            callback=self._on_block,
        )
        self._stream.start()

    def _on_block(self, samples: np.ndarray, _n: int, _time: Any, status: Any) -> None:
        """PortAudio's callback, on its own thread."""
        if status and status.input_overflow:
            self._has_overflowed = True
        mono = self._chooser.mono(samples, self._rate)
        self._queue.put(Block(mono, self._clock()), wait=False)

    def _at_16_khz(self, block: Block) -> Block:
        self._notice_mute(block.samples)
        return Block(self._resampler.push(block.samples), block.time)

    def _notice_channel(self) -> None:
        """Say which input is heard when it is not the first."""
        number = self._chooser.current
        if self._channel is None and number != self._said_channel:
            self._said_channel = number
            self.notify(
                f"hearing input {number} of the {self._chooser.n_channels} of "
                f"{self.name}; --channel {number} keeps to it"
            )

    def _notice_mute(self, samples: np.ndarray) -> None:
        """Say once, at the beginning of a device's life, that it delivers nothing."""
        if self._n_zeros < 0:
            return
        if samples.any():
            self._n_zeros = -1
            return
        self._n_zeros += len(samples)
        if self._n_zeros >= _MUTE_AFTER_S * self._rate:
            self._n_zeros = -1
            self.notify(mute_advice(self.name, self._chooser))

    def _lose_device(self) -> None:
        self.close()
        self._gone_since = self._retried = self._clock()
        self.notify(f"{self.name} is gone; waiting for it")

    def _read_without_device(self, timeout_s: float) -> list[Block]:
        """Silence as long as the time that passes; tries to find a device again."""
        time.sleep(min(timeout_s, 1 / _BLOCKS_PER_SECOND))
        now = self._clock()
        if self._is_alone and now - self._retried > _RETRY_EVERY_S:
            self._retried = now
            self._reopen(may_fall_back=now - self._gone_since > _FALL_BACK_AFTER_S)
        now = self._clock()
        n_silent = round(max(0.0, now - self._heard_until) * SAMPLE_RATE)
        self._heard_until = now
        return [Block(np.zeros(n_silent, np.float32), now)] if n_silent else []

    def _reopen(self, *, may_fall_back: bool) -> None:
        start_anew(self._portaudio)
        lost = self.name
        is_there = len(devices_named(self._portaudio, lost)) >= self._n_alike
        if (is_there or may_fall_back) and self.bring_back():
            return
        if not may_fall_back:
            return
        try:
            self._choose(None)
        except DeviceError:
            return
        self.notify(f"{lost} did not come back; hearing {self.name} instead")
