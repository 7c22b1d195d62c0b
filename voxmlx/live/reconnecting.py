"""Attempts to reach a server again, on a thread of their own."""

import threading
import time
from collections.abc import Callable

from voxmlx.errors import ServerError
from voxmlx.live.server_connection import ServerConnection

__all__ = ["Reconnecting"]

# Between two attempts: twice as long each time, up to the last figure.
_FIRST_S, _LONGEST_S = 0.5, 10.0


class Reconnecting:
    """Tries until a server lets us in, refuses for good, or `until` has come."""

    def __init__(
        self,
        connect: Callable[[], ServerConnection],
        *,
        until: float,
        n_before: int = 0,
    ) -> None:
        """Begin; `until` is monotonic seconds.

        `n_before` attempts went before without avail, so that the first wait is longer.
        """
        self._connect = connect
        self._until = until
        self.n_attempts = n_before
        self._is_cancelled = threading.Event()
        self._is_done = threading.Event()
        self._connection: ServerConnection | None = None
        # A lasting refusal, or what the last attempt met.
        self.error: ServerError | None = None
        thread = threading.Thread(target=self._run, name="reconnecting", daemon=True)
        thread.start()

    def is_done(self, timeout_s: float = 0.0) -> bool:
        """Wait for the end of the attempts; return whether it has come."""
        return self._is_done.wait(timeout_s)

    def take(self) -> ServerConnection | None:
        """Return the connection once `is_done`; None where there is none."""
        connection, self._connection = self._connection, None
        return connection

    def cancel(self) -> None:
        """Try no more."""
        self._is_cancelled.set()
        if self._is_done.is_set() and (connection := self.take()) is not None:
            connection.close()

    def _run(self) -> None:
        try:
            while not self._is_cancelled.is_set():
                wait_s = min(_FIRST_S * 2 ** min(self.n_attempts, 10), _LONGEST_S)
                left_s = self._until - time.monotonic()
                if self._is_cancelled.wait(max(0.0, min(wait_s, left_s))):
                    return
                self.n_attempts += 1
                try:
                    connection = self._connect()
                except ServerError as error:
                    self.error = error
                    if not error.may_return or time.monotonic() >= self._until:
                        return
                    continue
                if self._is_cancelled.is_set():
                    connection.close()
                else:
                    self._connection = connection
                return
        finally:
            self._is_done.set()
