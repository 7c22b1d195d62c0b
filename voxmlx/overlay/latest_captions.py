"""The latest captions, for viewers on an event loop: who is slow skips some."""

import asyncio
import json
from collections.abc import AsyncIterator

__all__ = ["LatestCaptions"]

# A viewer that has gone without a word is noticed when something is sent to it.
_KEEP_ALIVE_S = 15.0

# How soon a browser tries again, in ms, when the connection breaks off.
_RETRY_MS = 1000


class LatestCaptions:
    """The text that is shown now, as server-sent events.

    Each message holds all that is shown. So whoever comes, or comes again, has it at
    once. A viewer that does not read has no queue: it gets the latest message when it
    reads again. All methods but `set` are for the event loop's thread.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._message = self._latest = _message("", "")
        self._is_scheduled = False
        self._changed = asyncio.Event()
        self._is_over = False

    def set(self, text: str, draft: str) -> None:
        """Replace what is shown; from any thread."""
        self._latest = _message(text, draft)
        # Once, however often it is set before the loop has a turn.
        if not self._is_scheduled and not self._loop.is_closed():
            self._is_scheduled = True
            self._loop.call_soon_threadsafe(self._replace)

    def end(self) -> None:
        """Show nothing more; viewers are let go."""
        self._is_over = True
        self._latest = _message("", "")
        self._replace()

    async def follow(self) -> AsyncIterator[bytes]:
        """Yield what is shown now, then whatever replaces it."""
        yield f"retry: {_RETRY_MS}\n".encode()
        sent = b""
        while True:
            if self._message is not sent:
                sent = self._message
                yield sent
            elif self._is_over:
                return
            else:
                try:
                    async with asyncio.timeout(_KEEP_ALIVE_S):
                        await self._changed.wait()
                except TimeoutError:
                    yield b": still here\n\n"

    def _replace(self) -> None:
        self._is_scheduled = False
        self._message = self._latest
        self._changed.set()
        self._changed = asyncio.Event()


def _message(text: str, draft: str) -> bytes:
    return f"data: {json.dumps({'text': text, 'draft': draft})}\n\n".encode()
