"""Messages that wait to be sent to a client; of drafts, only the newest."""

import asyncio
from collections import OrderedDict

from voxmlx.serve.protocol import Close

__all__ = ["Outbox"]


class Outbox:
    """Encoded messages in order, and the goodbye after them. From one event loop.

    A draft takes the place of one that still waits, and stands behind all messages
    since. So a client that reads slowly finds one draft, however many there were.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, str | bytes] = OrderedDict()
        self._close: Close | None = None
        self._n_put = 0
        self._draft = 0  # the number of the last one
        self._news = asyncio.Event()
        self.n_bytes = 0  # of messages that were put and are not `sent`

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self._waiting)

    def put(self, message: str | bytes, *, is_draft: bool = False) -> None:
        """Add a message. Texts are of ASCII: a byte for each character."""
        if self._close is not None:
            return
        self._n_put += 1
        if is_draft:
            self.n_bytes -= len(self._waiting.pop(self._draft, ""))
            self._draft = self._n_put
        self.n_bytes += len(message)
        self._waiting[self._n_put] = message
        self._news.set()

    def close(self, close: Close) -> None:
        """End it, once all messages are taken; only the first goodbye counts."""
        self._close = self._close or close
        self._news.set()

    async def get(self) -> str | bytes | Close:
        """Take the next message; the goodbye after all of them. Wait for either."""
        while not self._waiting:
            if self._close is not None:
                return self._close
            self._news.clear()
            await self._news.wait()
        return self._waiting.popitem(last=False)[1]

    def sent(self, message: str | bytes) -> None:
        """Note that a message from `get` has gone."""
        self.n_bytes -= len(message)
