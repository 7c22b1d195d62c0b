"""Request bodies that are too large, or that stop coming, are refused."""

import asyncio
import contextlib

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voxmlx.errors import RequestError
from voxmlx.serve.transcriptions import error_object

__all__ = ["BoundedBody"]


class BoundedBody:
    """ASGI middleware: bodies of at most `max_bytes`, no pause of them over `idle_s`.

    What is refused closes the connection: the rest of the body may be long.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, idle_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._idle_s = idle_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive, self._max_bytes, self._idle_s)
        has_begun = False

        async def note(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            body.check_promise(dict(scope["headers"]).get(b"content-length", b""))
            await self._app(scope, body.receive, note)
        except _Refused as refused:
            if not has_begun:
                await _refusal(refused.error)(scope, receive, send)


class _Refused(Exception):
    """On its way past the application, which handles no exception of this kind."""

    def __init__(self, error: RequestError) -> None:
        super().__init__(str(error))
        self.error = error


class _Body:
    """A request's body as it comes."""

    def __init__(self, receive: Receive, max_bytes: int, idle_s: float) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._n_bytes = 0
        self._is_complete = False

    def check_promise(self, content_length: bytes) -> None:
        """Refuse at once what says that it is too long."""
        with contextlib.suppress(ValueError):
            self._check(int(content_length))

    async def receive(self) -> Message:
        if self._is_complete:  # a disconnect is waited for, however long
            return await self._receive()
        try:
            async with asyncio.timeout(self._idle_s):
                message = await self._receive()
        except TimeoutError:
            text = f"nothing of the body came for {self._idle_s:g} s"
            raise _Refused(RequestError(text, code="idle", status=408)) from None
        self._n_bytes += len(message.get("body", b""))
        self._check(self._n_bytes)
        self._is_complete = not message.get("more_body", False)
        return message

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            text = f"the body has more than {self._max_bytes} bytes"
            raise _Refused(RequestError(text, code="body_too_large", status=413))


def _refusal(error: RequestError) -> JSONResponse:
    return JSONResponse(
        {"error": error_object(error)},
        status_code=error.status,
        headers={"Connection": "close"},
    )
