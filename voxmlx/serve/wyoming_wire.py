"""Bytes of Wyoming's connections <-> events: a line of JSON, more JSON, a payload.

An event on the wire, and how it is read. Each state waits for so many more bytes:

             a line                data_length bytes          payload_length bytes
  IN_HEADER ────────▶ IN_DATA ───────────────────────▶ IN_PAYLOAD ───▶ event, IN_HEADER

  IN_HEADER   {"type": "audio-chunk", "data_length": 44, "payload_length": 2048}
  IN_DATA     {"rate": 16000, "width": 2, "channels": 1} joins the header's own `data`
  IN_PAYLOAD  2048 bytes of sound

An event is at most `max_bytes` long. What is none ends the connection: nobody can tell
where the next event would begin.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

from voxmlx.errors import RequestError
from voxmlx.serve.json_object import JsonObject, read_json

__all__ = ["EventReader", "encode_event"]

_VERSION = "1.5.0"  # of the protocol, as its package counts


class EventReader:
    """Bytes in, in pieces of any size; whole events out, as one flat JSON object each.

    `type` of the header is a field beside those of `data`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pending = bytearray()
        self._n_searched = 0  # of `_pending`, which have no end of a line
        self._header: JsonObject | None = None
        self._data: dict[str, Any] = {}
        self._n_data = self._n_payload = 0

    @property
    def is_inside(self) -> bool:
        """Return whether an event has begun that is not whole."""
        return self._header is not None or bool(self._pending)

    @property
    def n_pending(self) -> int:
        """Return the bytes that are held for an event that is not whole."""
        return len(self._pending)

    def feed(self, content: bytes) -> None:
        """Add bytes. Take all events with `next` before the next ones."""
        self._pending += content

    def next(self) -> JsonObject | None:
        """Return the next whole event; None if there is none. Raises RequestError."""
        if self._header is None and not self._read_header():
            return None
        n = self._n_data + self._n_payload
        if len(self._pending) < n:
            return None
        header, fields = self._header, self._data
        assert header is not None
        if self._n_data:
            fields |= _object(bytes(self._pending[: self._n_data]))
        payload = bytes(self._pending[self._n_data : n])
        self._take(n)
        self._header = None
        return JsonObject({**fields, "type": header.text("type")}, payload=payload)

    def _read_header(self) -> bool:
        end = self._pending.find(b"\n", self._n_searched)
        self._n_searched = len(self._pending)
        self._check_size(end if end >= 0 else len(self._pending))
        if end < 0:
            return False
        header = JsonObject(_object(bytes(self._pending[:end])))
        self._take(end + 1)
        header.text("type")
        self._n_data = _length(header, "data_length")
        self._n_payload = _length(header, "payload_length")
        self._check_size(end + self._n_data + self._n_payload)
        self._data = dict(header.section("data").values)
        self._header = header
        return True

    def _take(self, n: int) -> None:
        del self._pending[:n]
        self._n_searched = 0

    def _check_size(self, n: int) -> None:
        if n > self._max_bytes:
            raise RequestError(
                f"an event has more than {self._max_bytes} bytes; send sound in "
                "shorter ones",
                code="message_too_large",
            )


def encode_event(message: Mapping[str, Any]) -> bytes:
    """Return a flat message as an event on the wire."""
    fields = {name: value for name, value in message.items() if name != "type"}
    content = json.dumps(fields).encode() if fields else b""
    header = {"type": message["type"], "version": _VERSION}
    if content:
        header["data_length"] = len(content)
    return json.dumps(header).encode() + b"\n" + content


def _length(header: JsonObject, name: str) -> int:
    n = header.whole(name, 0)
    if n < 0:
        raise header.wrong(name, "expected at least 0")
    return n


def _object(content: bytes) -> dict[str, Any]:
    value = read_json(content)
    if not isinstance(value, dict):
        raise RequestError(
            "an event is no JSON object; send one object in each line",
            code="invalid_message",
        )
    return cast("dict[str, Any]", value)
