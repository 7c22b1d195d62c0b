"""One id of a stream, and what stands in the place of an id."""

from dataclasses import dataclass, field

__all__ = ["NOT_FINITE", "NO_TOKEN", "Decoded"]

# Stands in the place of an id where a stream is still inside its prompt.
NO_TOKEN = -1
# Stands in the place of an id whose logits held an infinity or a NaN.
NOT_FINITE = -2


@dataclass(frozen=True, slots=True)
class Decoded:
    """One id, and what was asked for about it.

    `guard` names the rule without which it would have been another id.
    `alternatives` are pairs of id and log-probability, most probable first.
    `recovered` names what was not finite, at the first id from a new state.
    `certain_at` is how many positions the stream had heard when this id became certain.
    """

    token_id: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()
    guard: str | None = None
    recovered: str | None = None
    certain_at: int = field(default=0, compare=False)
