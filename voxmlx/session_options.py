"""Bounds and defaults of what a session may be asked for."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TypeGuard

from voxmlx.config import delay_tokens
from voxmlx.decoding.hotwords import HotwordTrie
from voxmlx.decoding.rules import DecodeRule, make_guards
from voxmlx.decoding.speculation import MAX_POSITIONS
from voxmlx.errors import SessionError
from voxmlx.model.cache import KV_BITS
from voxmlx.text.utterances import check_pause

__all__ = [
    "DRAFT_WINDOW_MS",
    "LIVE_SILENCE_BLOCK",
    "MAX_ALTERNATIVES",
    "MAX_BOOST",
    "check_draft",
    "check_hotwords",
    "check_options",
    "open_guards",
]

MAX_ALTERNATIVES = 100
MAX_BOOST = 20.0

DRAFT_WINDOW_MS = 80_000
"""How much of the past a draft remembers, in ms, unless asked for otherwise."""
_MIN_DRAFT_WINDOW_MS = 8_000

LIVE_SILENCE_BLOCK = 8
"""How many audio tokens of silence the commands collect: 0.64 s."""


def check_options(
    alternatives: int, pause_ms: int, kv_bits: int, silence_block: int
) -> None:
    """Raise SessionError for a value of Session that no stream can have."""
    _check_whole("silence_block", silence_block, 1, MAX_POSITIONS)
    _check_whole("alternatives", alternatives, 0, MAX_ALTERNATIVES)
    _check_whole("pause_ms", pause_ms)
    if not _is_whole(kv_bits) or kv_bits not in KV_BITS:
        raise SessionError(
            f"kv_bits is {kv_bits!r}, expected {' or '.join(map(str, KV_BITS))}"
        )
    try:
        check_pause(pause_ms)
    except ValueError as error:
        raise SessionError(str(error)) from None


def check_draft(draft_delay_ms: int, delay_ms: int, window_ms: int) -> None:
    """Raise SessionError for a draft that is no sooner, DelayError for no delay."""
    if delay_tokens(draft_delay_ms) >= delay_tokens(delay_ms):
        raise SessionError(
            f"draft_delay_ms is {draft_delay_ms}, expected less than the delay of "
            f"{delay_ms} ms"
        )
    _check_whole("draft_window_ms", window_ms, _MIN_DRAFT_WINDOW_MS)


def check_hotwords(hotwords: Sequence[str] | HotwordTrie, boost: float) -> None:
    """Raise SessionError for one text instead of a list, or a boost out of bounds."""
    if isinstance(hotwords, str):
        raise SessionError(f"hot words are the text {hotwords!r}, expected a list")
    if not _is_number(boost) or not 0 < boost <= MAX_BOOST:
        raise SessionError(
            f"hot words are boosted by {boost!r}, expected more than 0, at most "
            f"{MAX_BOOST}"
        )


def open_guards(names: Sequence[str]) -> list[DecodeRule]:
    """Return a new guard for each name. Raises SessionError for an unknown one."""
    if isinstance(names, str):
        raise SessionError(f"guards are the text {names!r}, expected a list of names")
    try:
        return make_guards(names)
    except ValueError as error:
        raise SessionError(str(error)) from None


def _check_whole(
    name: str, value: object, least: int | None = None, most: int | None = None
) -> None:
    bounds = (
        [] if least is None else [f"{least} to {most}" if most else f"at least {least}"]
    )
    if not _is_whole(value):
        bounds.insert(0, "a whole number")
    elif (least is None or value >= least) and (most is None or value <= most):
        return
    raise SessionError(f"{name} is {value!r}, expected {', '.join(bounds)}")


def _is_whole(value: object) -> TypeGuard[int]:
    """Return whether an untyped caller gave a whole number, of Python or NumPy."""
    return isinstance(value, Integral) and value is not True and value is not False


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and value is not True
