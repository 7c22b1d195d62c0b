"""Routes of the server: websockets, uploads, models, metrics, and the page."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    Response,
)
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from voxmlx.config import LEFT_PAD_TOKENS
from voxmlx.errors import RequestError
from voxmlx.serve.connection import Connection, Received, Talk, Transport
from voxmlx.serve.conversation import Conversation, Hints
from voxmlx.serve.docs_page import docs_page
from voxmlx.serve.metrics import Metrics
from voxmlx.serve.model_names import check_model
from voxmlx.serve.openapi_document import openapi_document
from voxmlx.serve.operations import OPERATIONS
from voxmlx.serve.os_errors import as_request_error
from voxmlx.serve.protocol import Served
from voxmlx.serve.response_formats import error_object
from voxmlx.serve.scheduler import Scheduler
from voxmlx.serve.stream_options import StreamOptions
from voxmlx.serve.transcriptions import Uploads
from voxmlx.serve.transports import WebSocketTransport
from voxmlx.web.access import Access
from voxmlx.web.browser_rules import BrowserRules
from voxmlx.web.limits import Limits

__all__ = ["Service"]

_log = logging.getLogger("voxmlx.serve")

_PAGE = Path(__file__).parent / "page"

# How long the last clients may take to read why they are refused.
_GOODBYE_S = 1.0

# What a browser that has to offer subprotocols offers besides its key.
_SUBPROTOCOL = "realtime"

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Guarded:
    """An endpoint behind the checks that all requests pass."""

    access: Access
    endpoint: Endpoint
    is_open: bool

    async def respond(self, request: Request) -> Response:
        self.access.check(request.headers, is_open=self.is_open)
        return await self.endpoint(request)


class Service:
    """One scheduler, and everybody who uses it over sockets."""

    def __init__(
        self,
        scheduler: Scheduler,
        metrics: Metrics,
        *,
        model: str,
        aliases: Sequence[str] = (),
        options: StreamOptions,
        left_pad_tokens: int = LEFT_PAD_TOKENS,
        access: Access,
        limits: Limits,
    ) -> None:
        self.scheduler = scheduler
        self._metrics = metrics
        self._access = access
        self.limits = limits
        self.served = Served(
            model=model,
            options=options,
            new_id=lambda prefix: f"{prefix}_{uuid.uuid4().hex}",
            now_s=lambda: int(time.time()),
            left_pad_tokens=left_pad_tokens,
            aliases=tuple(aliases),
        )
        self._started_s = int(time.time())
        self._connections: set[Connection[Any]] = set()
        needs_key = bool(access.keys)
        self._document = openapi_document(OPERATIONS, needs_key=needs_key)
        self._uploads = Uploads(scheduler, limits, self.served)
        metrics.watch(lambda: scheduler.n_slots, lambda: scheduler.waiting_ms)

    @property
    def n_connections(self) -> int:
        """Return how many realtime clients there are."""
        return len(self._connections)

    @property
    def n_upload_bytes(self) -> int:
        """Return the bytes of all uploaded files that are here."""
        return self._uploads.n_bytes

    async def converse(
        self, transport: Transport[Received], conversation: Talk[Received]
    ) -> None:
        """Serve a client of any realtime protocol until it goes."""
        connection = Connection(
            transport, conversation, self.scheduler, self.limits, self._metrics
        )
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    def app(self) -> ASGIApp:
        """The ASGI application."""
        origins = list(self._access.origins)
        return Starlette(
            routes=self.routes(),
            exception_handlers={
                RequestError: self._on_error,
                HTTPException: self._on_http_error,
                OSError: self._on_os_error,
                Exception: self._on_mistake,
            },
            middleware=[
                Middleware(BrowserRules),
                Middleware(
                    CORSMiddleware,
                    allow_origins=origins,
                    allow_methods=["GET", "POST"],
                    allow_headers=["*"],
                ),
            ],
        )

    async def drain(self) -> None:
        """Let nobody in, and everybody who is there come to an end, for a while.

        What is here is decoded to its end. A body that is still to come is not waited
        for.
        """
        self.scheduler.drain()
        gone = RequestError(
            "the server is shutting down", code="shutting_down", status=503
        )
        self._uploads.stop_receiving(gone)
        for connection in list(self._connections):
            connection.end()
        if await self._ended(self.limits.grace_s):
            return
        _log.warning("some clients did not end in time")
        self._uploads.stop(gone)
        await self._ended(_GOODBYE_S)

    async def _ended(self, seconds: float) -> bool:
        """Whether nobody is left after at most so long."""
        try:
            async with asyncio.timeout(seconds):
                while self._connections or len(self._uploads):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    def routes(self) -> list[BaseRoute]:
        endpoints: dict[str, Endpoint] = {
            "transcribe": self._transcribe,
            "models": self._models,
            "model": self._model,
            "health": self._health,
            "metrics": self._show_metrics,
            "page": self._page,
            "docs": self._docs,
            "openapi": self._openapi,
        }
        routes: list[BaseRoute] = []
        for one in OPERATIONS:
            if one.is_websocket:
                routes.append(WebSocketRoute(one.path, self._realtime))
            elif one.name == "page_file":
                routes.append(Mount("/page", StaticFiles(directory=_PAGE)))
            else:
                guarded = _Guarded(self._access, endpoints.pop(one.name), one.is_open)
                route = Route(one.path, guarded.respond, methods=[one.method])
                routes.append(route)
        assert not endpoints, f"{endpoints} have no place in OPERATIONS"
        return routes

    async def _page(self, _: Request) -> Response:
        return FileResponse(_PAGE / "index.html")

    async def _docs(self, _: Request) -> Response:
        return HTMLResponse(docs_page(self._document))

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(self._document)

    async def _health(self, _: Request) -> Response:
        is_draining = self.scheduler.is_draining
        return JSONResponse(
            {
                "status": "shutting down" if is_draining else "ok",
                "model": self.served.model,
                "sessions": self.scheduler.n_slots,
                "max_sessions": self.scheduler.max_sessions,
            },
            status_code=503 if is_draining else 200,
        )

    async def _show_metrics(self, _: Request) -> Response:
        return Response(
            self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    async def _models(self, _: Request) -> Response:
        models = [self._model_object(name) for name in self.served.names]
        return JSONResponse({"object": "list", "data": models})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        check_model(name, self.served.names)
        return JSONResponse(self._model_object(name))

    def _model_object(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._started_s,
            "owned_by": "voxmlx",
            # What Mistral's package cannot read a model without.
            "type": "base",
            "capabilities": {
                "completion_chat": False,
                "audio_transcription": True,
                "audio_transcription_realtime": True,
            },
        }

    async def _transcribe(self, request: Request) -> Response:
        try:
            return await self._uploads.respond(request)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody will read it

    async def _realtime(self, websocket: WebSocket) -> None:
        try:
            self._access.check(websocket.headers)
            name = websocket.query_params.get("model") or None
            check_model(name, self.served.names)
        except RequestError as error:
            self._metrics.failed(error.code)
            await websocket.send_denial_response(_error_response(error))
            return
        conversation = Conversation(self.served, _hints(websocket))
        is_offered = _SUBPROTOCOL in websocket.scope["subprotocols"]
        subprotocol = _SUBPROTOCOL if is_offered else None
        await self.converse(WebSocketTransport(websocket, subprotocol), conversation)

    async def _on_error(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        self._metrics.failed(error.code)
        return _error_response(error)

    async def _on_os_error(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, OSError)
        told = as_request_error(error)
        self._metrics.failed(told.code)
        return _error_response(told)

    async def _on_mistake(self, _: Request, error: Exception) -> Response:
        """A mistake of ours; the log says more about it."""
        del error
        self._metrics.failed("server_error")
        return _error_response(
            RequestError("the server failed", code="server_error", status=500)
        )

    async def _on_http_error(self, _: Request, error: Exception) -> Response:
        """What starlette refuses: no such path or method, a form that is none."""
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(
            error.status_code, "invalid_request"
        )
        told = RequestError(error.detail, code=code, status=error.status_code)
        self._metrics.failed(code)
        return _error_response(told, dict(error.headers or {}))


def _error_response(
    error: RequestError, headers: dict[str, str] | None = None
) -> JSONResponse:
    headers = dict(headers or {})
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse(
        {"error": error_object(error)}, status_code=error.status, headers=headers
    )


def _hints(websocket: WebSocket) -> Hints:
    """What a client's request says about its dialect."""
    headers, offered = websocket.headers, websocket.scope["subprotocols"]
    is_beta = "realtime=v1" in headers.get("openai-beta", "") or any(
        name.startswith("openai-beta.realtime") for name in offered
    )
    return Hints(
        path=websocket.url.path,
        intent=websocket.query_params.get("intent"),
        has_openai_headers=headers.get("user-agent", "").startswith("OpenAI/"),
        is_beta=is_beta,
    )
