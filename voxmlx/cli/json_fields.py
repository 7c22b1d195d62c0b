"""JSON that a server sends -> its fields, whatever it is."""

import json
from collections.abc import Mapping
from typing import Any, cast

__all__ = ["fields_in", "fields_of"]


def fields_of(value: object) -> Mapping[str, Any]:
    """Return an object's fields; none of a value that is no JSON object."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def fields_in(text: str | bytes) -> Mapping[str, Any]:
    """Return the fields of the object in a text; none if there is no such object."""
    try:
        return fields_of(json.loads(text))
    except (ValueError, RecursionError):  # nested without end
        return {}
