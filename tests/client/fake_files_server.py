"""A server of OpenAI's dialect for files, as strict as vLLM, that knows no model."""

import asyncio
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import soundfile
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.serve.loopback import PATIENCE_S, until

__all__ = ["FakeServer", "Received", "answering", "vllm_error"]


@dataclass(frozen=True)
class Received:
    """One form: its fields, and the file's name, length in seconds and rate."""

    fields: dict[str, list[str]]
    name: str
    content: bytes
    duration_s: float
    rate: int


@dataclass
class FakeServer:
    """Says `words` of every file, in the forms that it has.

    `before` may answer instead of it; it gets the number of the request, from 0.
    """

    url: str = ""
    models: tuple[str, ...] = ("mistralai/voxtral",)
    key: str | None = None
    forms: tuple[str, ...] = ("json", "text")
    words: str = "what was said"
    has_words: bool = True
    before: Callable[[int], Response | None] = lambda n: None
    received: list[Received] = field(default_factory=list)
    n_requests: int = 0
    n_now: int = 0
    n_most: int = 0
    # So many requests wait for each other, unless there are fewer left.
    n_together: int = 1

    async def list_models(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        data = [{"id": m, "object": "model", "owned_by": "vllm"} for m in self.models]
        return JSONResponse({"object": "list", "data": data})

    async def transcribe(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        n, self.n_requests = self.n_requests, self.n_requests + 1
        if (answer := self.before(n)) is not None:
            return answer
        self.n_now += 1
        self.n_most = max(self.n_most, self.n_now)
        try:
            return await self._transcribe(request)
        finally:
            self.n_now -= 1

    def _refused(self, request: Request) -> Response | None:
        given = request.headers.get("authorization")
        if self.key is None or given == f"Bearer {self.key}":
            return None
        return JSONResponse({"error": "Unauthorized"}, 401)

    async def _transcribe(self, request: Request) -> Response:
        async with request.form() as form:
            texts = [(k, v) for k, v in form.multi_items() if isinstance(v, str)]
            fields: dict[str, list[str]] = {}
            for key, value in texts:
                fields.setdefault(key, []).append(value)
            file = form["file"]
            assert not isinstance(file, str)
            content = await file.read()
        if fields["model"][0] not in self.models:
            return vllm_error(404, f"The model `{fields['model'][0]}` does not exist.")
        async with asyncio.timeout(PATIENCE_S):
            while self.n_most < self.n_together:
                await asyncio.sleep(0.01)
        try:
            info = soundfile.info(io.BytesIO(content))
        except soundfile.LibsndfileError:
            return vllm_error(400, "Invalid or unsupported audio file.")
        name = file.filename or ""
        taken = Received(fields, name, content, info.duration, info.samplerate)
        self.received.append(taken)
        form_name = fields["response_format"][0]
        if form_name not in self.forms:
            return vllm_error(
                400, f"Currently do not support {form_name} for this model"
            )
        return JSONResponse(self._content(form_name, info.duration))

    def _content(self, form: str, duration_s: float) -> dict[str, Any]:
        content: dict[str, Any] = {"text": f" {self.words}"}
        if form == "json":
            return content | {"usage": {"type": "duration", "seconds": duration_s}}
        words = self.words.split()
        content |= {"language": "en", "duration": str(duration_s)}
        if self.has_words:
            content["words"] = [
                {"word": word.strip(',.!?"'), "start": i * 0.5, "end": i * 0.5 + 0.4}
                for i, word in enumerate(words)
            ]
        return content | {
            "segments": [
                {"id": 0, "text": f" {self.words}", "start": 0.0, "end": duration_s}
            ]
        }


def vllm_error(status: int, message: str) -> Response:
    error = {
        "message": message,
        "type": "BadRequestError",
        "param": None,
        "code": status,
    }
    return JSONResponse({"error": error}, status)


@contextmanager
def answering(fake: FakeServer) -> Iterator[FakeServer]:
    """Serve it on a free port of this machine."""
    app = Starlette(
        routes=[
            Route("/v1/models", fake.list_models),
            Route("/v1/audio/transcriptions", fake.transcribe, methods=["POST"]),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    fake.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    until(lambda: server.started)
    try:
        yield fake
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
