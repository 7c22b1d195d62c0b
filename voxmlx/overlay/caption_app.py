"""Routes of the captions' page: the page, its help, its files, and the captions."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from voxmlx.errors import RequestError
from voxmlx.overlay.latest_captions import LatestCaptions
from voxmlx.web.access import Access
from voxmlx.web.browser_rules import BrowserRules

__all__ = ["caption_app"]

_PAGE = Path(__file__).parent / "page"

# Nothing from anywhere else, no inline script or style, no frame around the page.
_CONTENT_RULES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def caption_app(captions: LatestCaptions, access: Access) -> ASGIApp:
    """Return the application that shows the captions to whom `access` lets in."""

    async def events(_: Request) -> Response:
        return StreamingResponse(
            captions.follow(),
            media_type="text/event-stream",
            headers={
                "Cache-Control": "no-store",
                "Cross-Origin-Resource-Policy": "same-origin",
            },
        )

    return Starlette(
        routes=[
            Route("/", _file("index.html")),
            Route("/help", _file("help.html")),
            Route("/events", events),
            Mount("/page", StaticFiles(directory=_PAGE)),
        ],
        middleware=[
            Middleware(BrowserRules, content_rules=_CONTENT_RULES),
            Middleware(_AccessCheck, access=access),
        ],
    )


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def respond(_: Request) -> Response:
        # A newer version of the package has a newer page.
        return FileResponse(_PAGE / name, headers={"Cache-Control": "no-cache"})

    return respond


class _AccessCheck:
    """ASGI middleware: refuses names that are not this server's, and strange pages."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._access.check(Headers(scope=scope))
            except RequestError as error:
                refusal = PlainTextResponse(f"{error.code}\n", error.status)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)
