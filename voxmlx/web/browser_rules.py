"""Headers that tell a browser what the server's pages may do."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["BrowserRules"]

# The page needs nothing from anywhere else, and may not be made to.
_PAGE_RULES = (
    "default-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class BrowserRules:
    """ASGI middleware: every response, an error too, says what a browser may do."""

    def __init__(self, app: ASGIApp, content_rules: str = _PAGE_RULES) -> None:
        """`content_rules` is the Content-Security-Policy."""
        self._app = app
        self._content_rules = content_rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_rules(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", self._content_rules)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
            await send(message)

        await self._app(scope, receive, send_with_rules)
