"""A client's JSON messages, read with care: what is wrong is told by its name."""

import json
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from voxmlx.errors import RequestError

__all__ = ["MAX_TEXT_CHARS", "JsonObject", "read_json", "read_message"]

# Longest text of a field, but sound: many are echoed, as often as they are sent.
MAX_TEXT_CHARS = 256


class JsonObject:
    """A client's JSON object, read with care. Every wrong type is a RequestError.

    `payload` is the bytes that came with it, where a protocol has such.
    """

    def __init__(
        self, values: Mapping[str, Any], path: str = "", payload: bytes = b""
    ) -> None:
        self.values = values
        self._path = path
        self.payload = payload

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def has(self, name: str) -> bool:
        """Return whether the field is there and not null."""
        return self.values.get(name) is not None

    def text(
        self,
        name: str,
        default: str | None = None,
        *,
        max_chars: int | None = MAX_TEXT_CHARS,
    ) -> str:
        text: str = self._value(name, str, "text", default)
        self._check_length(name, text, max_chars)
        return text

    def flag(self, name: str, default: bool | None = None) -> bool:
        return self._value(name, bool, "true or false", default)

    def whole(self, name: str, default: int | None = None) -> int:
        value = self._value(name, (int, float), "a whole number", default)
        if isinstance(value, bool) or value != value or value in (1e999, -1e999):
            raise self.wrong(name, "expected a whole number")
        if int(value) != value:
            raise self.wrong(name, "expected a whole number")
        return int(value)

    def whole_or_none(self, name: str, default: int | None) -> int | None:
        """A whole number; None for null, and `default` for a field that is absent."""
        if name not in self:
            return default
        return self.whole(name) if self.has(name) else None

    def section(self, name: str) -> "JsonObject":
        """An object; one that is absent or null is empty."""
        values = self._value(name, dict, "an object", {})
        return JsonObject(values, f"{self._path}{name}.")

    def texts(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        values = self._value(name, list, "a list of texts", list(default))
        if not all(isinstance(value, str) for value in values):
            raise self.wrong(name, "expected a list of texts")
        for value in values:
            self._check_length(name, value, MAX_TEXT_CHARS)
        return tuple(values)

    def _check_length(self, name: str, text: str, max_chars: int | None) -> None:
        if max_chars is not None and len(text) > max_chars:
            raise self.wrong(
                name, f"has {len(text)} characters, expected at most {max_chars}"
            )

    def wrong(
        self, name: str, message: str, code: str = "invalid_value"
    ) -> RequestError:
        path = self.path(name)
        return RequestError(f"{path}: {message}", code=code, param=path)

    def path(self, name: str) -> str:
        """Return where in the message a field is, as errors name it."""
        return f"{self._path}{name}"

    def _value(self, name: str, kind: Any, what: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None:
            if default is None:
                raise self.wrong(name, f"is missing, expected {what}")
            return default
        if not isinstance(value, kind):
            raise self.wrong(name, f"is a {_json_type(value)}, expected {what}")
        return value


def read_message(text: str | bytes) -> JsonObject:
    """A client's message. Raises RequestError unless it is an object with a type."""
    found = read_json(text)
    message = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if not isinstance(message.get("type"), str):
        raise RequestError(
            "the message is no object with a `type`; send one such object per message",
            code="invalid_message",
        )
    return JsonObject(message)


def read_json(text: str | bytes) -> Any:
    """The value that UTF-8 text has as JSON. Raises RequestError."""
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RequestError(
            "the message is no JSON; send one object per message", code="invalid_json"
        ) from None


def _refuse_constant(name: str) -> NoReturn:
    """Python reads NaN and Infinity, which JSON does not have."""
    raise ValueError(name)


def _json_type(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "list"
        case _:
            return "object"
