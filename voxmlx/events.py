"""What a session says: frozen values, final once emitted."""

from dataclasses import dataclass

__all__ = ["Event", "Finished", "TextDelta", "TokenDecoded"]


@dataclass(frozen=True, slots=True)
class TokenDecoded:
    """One id for one 80 ms audio token, blanks included.

    `index` counts from 0 after the prompt. `time_ms` is the stream time the id
    speaks about: a word marker here says that a word ended at about `time_ms`.
    """

    token_id: int
    index: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that follows everything emitted before it and never changes."""

    text: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The stream is over: `duration_ms` of sound gave `n_tokens` ids."""

    duration_ms: int
    n_tokens: int


Event = TokenDecoded | TextDelta | Finished
