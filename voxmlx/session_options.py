"""Bounds and defaults of what a session may be asked for."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TypeGuard, cast

from voxmlx.config import delay_tokens
from voxmlx.decoding.hotwords import HotwordTrie
from voxmlx.decoding.rules import DecodeRule, make_guards
from voxmlx.decoding.speculation import MAX_POSITIONS
from voxmlx.errors import SessionError
from voxmlx.model.cache import KV_BITS
from voxmlx.text.tokenizer import Tokenizer
from voxmlx.text.utterances import check_pause

__all__ = [
    "DRAFT_WINDOW_MS",
    "LIVE_SILENCE_BLOCK",
    "MAX_ALTERNATIVES",
    "MAX_BOOST",
    "check_checkpoint",
    "check_draft",
    "check_flag",
    "check_options",
    "check_replacements",
    "open_guards",
    "open_hotwords",
]

MAX_ALTERNATIVES = 100
MAX_BOOST = 20.0

DRAFT_WINDOW_MS = 80_000
"""How much of the past a draft remembers, in ms, unless asked for otherwise."""
_MIN_DRAFT_WINDOW_MS = 8_000

_MAX_SHOWN = 80

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
            f"kv_bits is {_shown(kv_bits)}, expected {' or '.join(map(str, KV_BITS))}"
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


def open_hotwords(
    tokenizer: Tokenizer, hotwords: Sequence[str] | HotwordTrie, boost: float
) -> HotwordTrie | None:
    """Return a trie of the phrases; None for no phrase.

    Raises SessionError for what is no list of texts, or a boost out of bounds, and
    HotwordError for a phrase that cannot be written.
    """
    if not _is_number(boost) or not 0 < boost <= MAX_BOOST:
        raise SessionError(
            f"hot words are boosted by {_shown(boost)}, expected more than 0, at most "
            f"{MAX_BOOST}"
        )
    if isinstance(hotwords, HotwordTrie):
        return hotwords
    phrases = _texts("hot words", hotwords)
    return HotwordTrie(tokenizer, phrases, boost=float(boost)) if phrases else None


def open_guards(names: Sequence[str]) -> list[DecodeRule]:
    """Return a new guard for each name. Raises SessionError for an unknown one."""
    try:
        return make_guards(_texts("guards", names))
    except ValueError as error:
        raise SessionError(str(error)) from None


def check_replacements(replacements: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return the dictionary, empty for None. Raises SessionError for anything else."""
    if replacements is None:
        return {}
    if not _is_mapping(replacements):
        raise SessionError(
            f"replacements are {_shown(replacements)}, expected a dictionary of texts"
        )
    _texts("replacements", [*replacements, *replacements.values()])
    return replacements


def check_flag(name: str, value: object) -> bool:
    """Return a truth value. Raises SessionError for anything else."""
    if value is True or value is False:
        return value
    raise SessionError(f"{name} is {_shown(value)}, expected True or False")


def check_checkpoint(checkpoint: object) -> None:
    """Raise SessionError for the name of a model instead of the model."""
    if isinstance(checkpoint, str | Path):
        raise SessionError(
            f"the model is {_shown(checkpoint)}, expected what voxmlx.load returns for it"
        )


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
    raise SessionError(f"{name} is {_shown(value)}, expected {', '.join(bounds)}")


def _texts(name: str, values: object) -> list[str]:
    """Return a list of texts. Raises SessionError for what is none."""
    if isinstance(values, str):
        raise SessionError(f"{name} are the text {_shown(values)}, expected a list")
    if not _is_list(values):
        raise SessionError(f"{name} are {_shown(values)}, expected a list of texts")
    found: list[object] = list(cast("Iterable[object]", values))
    for value in found:
        if not isinstance(value, str):
            raise SessionError(f"{name} have {_shown(value)} in them, expected texts")
    return cast("list[str]", found)


def _shown(value: object) -> str:
    """Return the value for a message of one line."""
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}..."


def _is_list(value: object) -> bool:
    is_other = isinstance(value, bytes | bytearray) or _is_mapping(value)
    return isinstance(value, Iterable) and not is_other


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_whole(value: object) -> TypeGuard[int]:
    """Return whether an untyped caller gave a whole number, of Python or NumPy."""
    return isinstance(value, Integral) and value is not True and value is not False


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and value is not True
