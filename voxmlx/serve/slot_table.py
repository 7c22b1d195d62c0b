"""Slots of all clients and the commands in them, for any thread."""

import threading
import time
from collections.abc import Callable, Iterator

from voxmlx.config import SAMPLES_PER_AUDIO_TOKEN
from voxmlx.errors import RequestError
from voxmlx.serve.protocol import Command, Finish, Flush, Open, PushAudio
from voxmlx.serve.slot import Deliver, Kind, Slot

__all__ = ["SlotTable"]

# Decoded to bring out the last words of a stream, about: a delay and 0.8 s.
_SILENCE_SAMPLES = 20 * SAMPLES_PER_AUDIO_TOKEN


class SlotTable:
    """Slots are opened, filled and released here; one thread waits for them.

    Commands of a slot keep their order. A slot that is released holds none.
    """

    def __init__(
        self,
        max_sessions: int,
        max_files: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """At most `max_files` of the slots are given to files."""
        self.max_sessions = max_sessions
        self.max_files = max_files
        self.is_draining = False
        self._clock = clock
        self._slots: set[Slot] = set()
        self._condition = threading.Condition()
        self._is_woken = False
        self._is_stopping = False

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        """Those that there are now, whoever comes and goes meanwhile."""
        with self._condition:
            return iter(list(self._slots))

    def open(self, deliver: Deliver, kind: Kind = "live") -> Slot:
        """A place for a client. Raises RequestError when there is none."""
        with self._condition:
            if self.is_draining:
                raise RequestError(
                    "the server is shutting down", code="shutting_down", status=503
                )
            if len(self._slots) >= self.max_sessions:
                raise RequestError(
                    f"all {self.max_sessions} sessions of this server are taken; try "
                    "again later, or start it with a larger --max-sessions",
                    code="at_capacity",
                    status=503,
                )
            n_files = sum(slot.kind == "file" for slot in self._slots)
            if kind == "file" and n_files >= self.max_files:
                raise RequestError(
                    f"{n_files} files are being transcribed, as many as may be at "
                    "once; try again later, or start the server with a larger "
                    "--max-uploads",
                    code="at_capacity",
                    status=503,
                )
            slot = Slot(self, deliver, kind)
            self._slots.add(slot)
            return slot

    def submit(self, slot: Slot, command: Command) -> None:
        """`Slot.submit`."""
        with self._condition:
            if slot.is_released:
                return
            slot.n_inbox_samples += _n_samples(command)
            slot.inbox.append((command, self._clock()))
            self._wake()

    def release(self, slot: Slot) -> None:
        """`Slot.release`."""
        with self._condition:
            if slot.is_released:
                return
            slot.is_released = True
            self._clear(slot)
            self._slots.discard(slot)
            self._wake()

    def first_command(self, slot: Slot) -> tuple[Command, float] | None:
        """Return a slot's next command, and when it came; None if there is none."""
        with self._condition:
            return slot.inbox[0] if slot.inbox else None

    def take_command(self, slot: Slot) -> bool:
        """Take the first command out; False if its client has left meanwhile."""
        with self._condition:
            if not slot.inbox:
                return False
            command, _ = slot.inbox.popleft()
            slot.n_inbox_samples -= _n_samples(command)
            if isinstance(command, PushAudio):
                slot.n_stream_samples += len(command.samples)
            return True

    def clear(self, slot: Slot) -> None:
        """Drop a slot's commands."""
        with self._condition:
            self._clear(slot)

    def wake(self) -> None:
        """End the current or the next `wait`."""
        with self._condition:
            self._wake()

    def stop(self) -> None:
        """End the current and every later `wait`."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify()

    def wait(
        self, is_due: Callable[[], bool], pause_s: Callable[[], float | None]
    ) -> bool:
        """Wait until somebody calls `wake`, or something is due; False to stop.

        `pause_s` is how long until the time alone may make something due.
        """
        with self._condition:
            while not (self._is_stopping or self._is_woken or is_due()):
                self._condition.wait(pause_s())
            self._is_woken = False
            return not self._is_stopping

    def _clear(self, slot: Slot) -> None:
        slot.inbox.clear()
        slot.n_inbox_samples = 0

    def _wake(self) -> None:
        self._is_woken = True
        self._condition.notify()


def _n_samples(command: Command) -> int:
    """What a command gives the decoder to do."""
    match command:
        case PushAudio(samples):
            return len(samples)
        case Flush() | Finish():
            return _SILENCE_SAMPLES
        case Open():
            return 0
