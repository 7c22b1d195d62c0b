"""The body of an upload: bytes as they come, in bounds of size and time."""

import asyncio
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from voxmlx.errors import RequestError
from voxmlx.web.limits import Limits

__all__ = ["UploadBody", "UploadTotal"]

# A body may take so long for any length, and then must have come this fast so far.
_FREE_S = 30.0
_LEAST_BYTES_PER_S = 4096


@dataclass(slots=True)
class UploadTotal:
    """Bytes of all files that are on the disk now."""

    max_bytes: int
    n_bytes: int = 0

    def check(self, n_more: int) -> None:
        """Raise RequestError where so many more are too many."""
        if self.n_bytes + n_more > self.max_bytes:
            raise RequestError(
                "the files of all clients are too much for the server now; try again "
                "later",
                code="at_capacity",
                status=503,
            )


class UploadBody:
    """One request's body; its bytes count in `total` until it is closed."""

    def __init__(self, request: Request, limits: Limits, total: UploadTotal) -> None:
        """Raises RequestError where the request says that its body is too long."""
        self._request = request
        self._limits = limits
        self._total = total
        self._n_bytes = 0
        self._is_complete = False
        self._refusal: RequestError | None = None
        self._timeout: asyncio.Timeout | None = None
        self._started = asyncio.get_running_loop().time()
        promised = request.headers.get("content-length", "")
        if promised.isdecimal():
            self._check_size(int(promised))
            total.check(int(promised))

    async def next(self) -> bytes | None:
        """Return the next bytes; None at the end.

        Raises RequestError for what is too long, too slow or refused meanwhile, and
        ClientDisconnect.
        """
        if self._refusal is not None:
            raise self._refusal
        if self._is_complete:
            return None
        now = asyncio.get_running_loop().time()
        in_all = self._started + _FREE_S + self._n_bytes / _LEAST_BYTES_PER_S
        try:
            async with asyncio.timeout_at(
                min(now + self._limits.body_idle_s, max(in_all, now))
            ) as self._timeout:
                message = await self._request.receive()
        except TimeoutError:
            raise self._refusal or RequestError(
                "the body came too slowly; send it faster, or a shorter one",
                code="too_slow",
                status=408,
            ) from None
        finally:
            self._timeout = None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._is_complete = not message.get("more_body", False)
        content: bytes = message.get("body", b"")
        self._check_size(self._n_bytes + len(content))
        self._total.check(len(content))
        self._n_bytes += len(content)
        self._total.n_bytes += len(content)
        return content

    def refuse(self, error: RequestError) -> None:
        """Take no more of it; whoever waits for the rest gets `error`."""
        self._refusal = error
        if self._timeout is not None:
            self._timeout.reschedule(0)

    def close(self) -> None:
        """Count its bytes no longer. Any number of times."""
        self._total.n_bytes -= self._n_bytes
        self._n_bytes = 0

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > self._limits.max_body_bytes:
            raise RequestError(
                f"the body has more than {self._limits.max_body_bytes} bytes; send a "
                "shorter or a compressed file",
                code="body_too_large",
                status=413,
            )
