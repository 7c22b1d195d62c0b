"""Reads the header of a safetensors file: where each tensor lies, and as what."""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

from voxmlx.errors import CheckpointError

__all__ = ["ITEM_BYTES", "HeaderEntry", "read_header"]

ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
}
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True, slots=True)
class HeaderEntry:
    """One tensor of a file: its type, its shape, and its bytes [start, end)."""

    dtype: str  # safetensors' name
    shape: tuple[int, ...]
    start: int
    end: int


class _Damage(Exception):
    """Says what is wrong with a header."""


def read_header(path: Path) -> dict[str, HeaderEntry]:
    """Return every tensor's entry by its name, without reading a tensor.

    The tensors fill the file without a gap, as the format demands.
    Raises CheckpointError where they do not, and where the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            n_bytes = file.seek(0, 2)
            file.seek(0)
            text = _text(file, n_bytes)
        return _entries(text, _LENGTH_BYTES + len(text), n_bytes)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing; a model directory needs params.json, "
            "consolidated.safetensors and tekken.json"
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}; check its permissions"
        ) from None
    except _Damage as error:
        raise CheckpointError(
            f"{path} is damaged or cut short ({error}); fetch it again"
        ) from None


def _text(file: BinaryIO, n_bytes: int) -> bytes:
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if not 2 <= length <= min(n_bytes - _LENGTH_BYTES, _MAX_HEADER_BYTES):
        raise _Damage(f"no header fits into its {n_bytes} bytes")
    return file.read(length)


def _entries(text: bytes, origin: int, n_bytes: int) -> dict[str, HeaderEntry]:
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise _Damage("its header is not JSON") from None
    if not isinstance(content, dict):
        raise _Damage("its header is no JSON object")
    rows = cast("dict[str, Any]", content)
    rows.pop("__metadata__", None)
    entries = {name: _entry(name, row, origin) for name, row in rows.items()}
    end = origin
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.end)):
        if entry.start != end:
            raise _Damage("its tensors do not follow one another")
        end = entry.end
    if end != n_bytes:
        raise _Damage(f"it has {n_bytes} bytes, its header says {end}")
    return entries


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise _Damage("its header names something twice")
    return content


def _entry(name: str, row: Any, origin: int) -> HeaderEntry:
    match row:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, end]}:
            numbers = [*shape, start, end]
        case _:
            raise _Damage(f"its header does not say what {name} is")
    if dtype not in ITEM_BYTES:
        raise _Damage(f"{name} has the unknown type {dtype}")
    # A boolean is an int to Python, and none to the format.
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise _Damage(f"{name} has the sizes {numbers}")
    if end - start != prod(shape) * ITEM_BYTES[dtype]:
        raise _Damage(f"{name} has {end - start} bytes for {shape} of {dtype}")
    return HeaderEntry(dtype, tuple(shape), origin + start, origin + end)
