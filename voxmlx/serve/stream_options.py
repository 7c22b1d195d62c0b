"""Options of a stream that a client may set, and which of them are possible."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from voxmlx.config import DEFAULT_DELAY_MS, delay_tokens
from voxmlx.errors import DelayError, RequestError, VoxmlxError
from voxmlx.session_options import DRAFT_WINDOW_MS, check_draft
from voxmlx.text.utterances import (
    DEFAULT_PAUSE_MS,
    MAX_PAUSE_MS,
    MIN_PAUSE_MS,
    check_pause,
)

__all__ = [
    "MAX_HOTWORDS",
    "MAX_HOTWORD_CHARS",
    "StreamOptions",
    "checked_options",
    "possible_pause",
]

# Finding the ids of so many takes the decoder's thread a third of a second, once.
MAX_HOTWORDS, MAX_HOTWORD_CHARS = 1000, 20_000


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Options of a stream that a client may set before its first sound."""

    delay_ms: int = DEFAULT_DELAY_MS
    pause_ms: int = DEFAULT_PAUSE_MS
    hotwords: tuple[str, ...] = ()
    hotwords_are_hints: bool = False  # those that cannot be written are left out
    confidence: bool = False  # of ids and words, for clients that ask
    draft_delay_ms: int | None = None  # of a draft, for clients that ask


def possible_pause(pause_ms: int) -> int:
    """Return the pause nearest to what a client of another server asks for.

    Agents end at any error, and ask for 200 ms: shorter than any pause of ours.
    """
    return min(max(pause_ms, MIN_PAUSE_MS), MAX_PAUSE_MS)


def checked_options(options: StreamOptions) -> None:
    """Raise RequestError for what no Session has."""
    with _refused("delay"):
        delay_tokens(options.delay_ms)
    with _refused("draft_delay_ms"):
        _check_draft(options.draft_delay_ms, options.delay_ms)
    with _refused("pause"):
        check_pause(options.pause_ms)
    with _refused("hotwords"):
        _check_hotwords(options.hotwords)


@contextmanager
def _refused(param: str) -> Generator[None]:
    """Make a refusal of the client of what is wrong with one of its options."""
    try:
        yield
    except (VoxmlxError, ValueError) as error:
        raise RequestError(str(error), code="invalid_value", param=param) from None


def _check_draft(draft_ms: int | None, delay_ms: int) -> None:
    if draft_ms is None:
        return
    try:
        check_draft(draft_ms, delay_ms, DRAFT_WINDOW_MS)
    except DelayError as error:
        raise ValueError(f"draft_delay_ms: {error}") from None


def _check_hotwords(hotwords: Sequence[str]) -> None:
    if len(hotwords) > MAX_HOTWORDS:
        raise ValueError(f"{len(hotwords)} hot words, expected at most {MAX_HOTWORDS}")
    n_chars = sum(map(len, hotwords))
    if n_chars > MAX_HOTWORD_CHARS:
        raise ValueError(
            f"hot words of {n_chars} characters, expected at most {MAX_HOTWORD_CHARS}"
        )
