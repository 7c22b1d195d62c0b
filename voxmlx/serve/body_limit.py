"""Request bodies that are too large, or that stop coming, are refused."""

import asyncio
import contextlib

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voxmlx.errors import RequestError
from voxmlx.serve.response_formats import error_object

__all__ = ["BodyLimit"]


class BodyLimit:
    """ASGI middleware: bodies of at most `max_bytes`, no pause of them over `idle_s`.

    To the application what is refused looks like a client that has hung up; whatever it
    answers to that, the refusal is sent. The connection is closed after it: the rest
    of the body may be long.
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
        body.check_promise(dict(scope["headers"]).get(b"content-length", b""))
        has_begun = False

        async def send_unless_refused(message: Message) -> None:
            nonlocal has_begun
            if has_begun or body.refusal is None:
                has_begun = True
                await send(message)

        if body.refusal is None:
            await self._app(scope, body.receive, send_unless_refused)
        if body.refusal is not None and not has_begun:
            await _response(body.refusal)(scope, receive, send)


class _Body:
    """A request's body as it comes."""

    def __init__(self, receive: Receive, max_bytes: int, idle_s: float) -> None:
        self.refusal: RequestError | None = None
        self._receive = receive
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._n_bytes = 0
        self._is_complete = False

    def check_promise(self, content_length: bytes) -> None:
        """Refuse at once what says that it is too long."""
        with contextlib.suppress(ValueError):
            self._count(int(content_length))
            self._n_bytes = 0

    async def receive(self) -> Message:
        if self._is_complete:  # a disconnect is waited for, however long
            return await self._receive()
        try:
            async with asyncio.timeout(self._idle_s):
                message = await self._receive()
        except TimeoutError:
            text = f"nothing of the body came for {self._idle_s:g} s"
            self.refusal = RequestError(text, code="idle", status=408)
            return {"type": "http.disconnect"}
        self._count(len(message.get("body", b"")))
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        self._is_complete = not message.get("more_body", False)
        return message

    def _count(self, n_bytes: int) -> None:
        self._n_bytes += n_bytes
        if self._n_bytes > self._max_bytes:
            text = f"the body has more than {self._max_bytes} bytes"
            self.refusal = RequestError(text, code="body_too_large", status=413)


def _response(error: RequestError) -> JSONResponse:
    return JSONResponse(
        {"error": error_object(error)},
        status_code=error.status,
        headers={"Connection": "close"},
    )
