"""The API's description in OpenAPI 3.1, from the list of operations."""

import re
from collections.abc import Sequence
from typing import Any

import voxmlx
from voxmlx.serve.operations import Operation

__all__ = ["openapi_document"]

_REASONS = {
    400: "What was sent is wrong; the error says what",
    401: "The key is missing or wrong",
    403: "Pages of that origin may not use the server",
    404: "There is no such thing",
    408: "The body came too slowly",
    413: "The body is too long",
    421: "The host is not a name of the server",
    500: "The server failed",
    503: "The server has no room now, or is shutting down",
    507: "The disk is full",
}
_ALWAYS = (403, 421, 500, 503)

_TEXT_OR_NULL = {"type": ["string", "null"]}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"enum": ["invalid_request_error", "server_error"]},
                "param": _TEXT_OR_NULL,
                "code": _TEXT_OR_NULL,
            },
        }
    },
}


def openapi_document(
    operations: Sequence[Operation], *, needs_key: bool
) -> dict[str, Any]:
    """Return the document; `needs_key` says whether the server asks for one."""
    paths: dict[str, Any] = {}
    for one in operations:
        path, parameters = _path(one.path)
        path_item = paths.setdefault(path, {})
        path_item[one.method.lower()] = _operation(one, parameters, needs_key)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "voxmlx",
            "version": voxmlx.__version__,
            "description": "Live speech to text: the protocols of OpenAI, Mistral and "
            "vLLM. Wyoming's is spoken on a port of its own, where one is asked for.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    one: Operation, parameters: list[str], needs_key: bool
) -> dict[str, Any]:
    asks = needs_key and not one.is_open
    described: dict[str, Any] = {
        "operationId": _operation_id(one),
        "summary": one.summary,
        "security": [{"key": []}] if asks else [],
        "parameters": [
            *(_parameter(name, "path", "") for name in parameters),
            *(_parameter(name, "query", about) for name, about in one.query.items()),
        ],
        "responses": _responses(one, asks),
    }
    if one.description:
        described["description"] = one.description
    if one.form is not None:
        content = {"multipart/form-data": {"schema": one.form}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _responses(one: Operation, asks: bool) -> dict[str, Any]:
    if one.is_websocket:
        answered: dict[str, Any] = {"101": {"description": "The websocket is open"}}
    else:
        content = {kind: {"schema": schema} for kind, schema in one.content.items()}
        answered = {"200": {"description": "The answer", "content": content}}
    statuses: set[int] = {*_ALWAYS, *one.errors}
    for status in sorted(statuses | {401} if asks else statuses):
        schema = {"$ref": "#/components/schemas/Error"}
        content = {"application/json": {"schema": schema}}
        answered[str(status)] = {"description": _REASONS[status], "content": content}
    return answered


def _parameter(name: str, place: str, description: str) -> dict[str, Any]:
    about = {"description": description} if description else {}
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": {"type": "string"},
        **about,
    }


def _path(path: str) -> tuple[str, list[str]]:
    """starlette's `/a/{b:path}` -> `/a/{b}` and its parameters."""
    names: list[str] = re.findall(r"\{(\w+)[^}]*\}", path)
    return re.sub(r"\{(\w+)[^}]*\}", r"{\1}", path), names


def _operation_id(one: Operation) -> str:
    words = re.findall(r"\w+", re.sub(r"\{.*\}", one.name, one.path))
    return "_".join((one.method.lower(), *words))
