"""Events of a stream -> log probabilities of its text, as OpenAI's clients read them."""

from typing import Any

from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.events import Event, TextDelta, TokenDecoded

__all__ = ["TokenLogprobs"]

_MARKERS = (STREAMING_PAD_ID, STREAMING_WORD_ID)


class TokenLogprobs:
    """All events in, an entry out for each `TextDelta`.

    Blanks and markers of words have no text and no entry. Ids that are one character
    together have one entry, with the sum of their log probabilities.
    """

    def __init__(self) -> None:
        self._logprob: float | None = None

    def push(self, event: Event) -> list[dict[str, Any]]:
        """Return the entries that the event completes: `token`, `bytes`, `logprob`."""
        match event:
            case TokenDecoded(token_id, logprob=logprob) if (
                logprob is not None and token_id not in _MARKERS
            ):
                self._logprob = (self._logprob or 0.0) + logprob
            case TextDelta(text) if self._logprob is not None:
                logprob, self._logprob = self._logprob, None
                return [
                    {"token": text, "bytes": list(text.encode()), "logprob": logprob}
                ]
            case _:
                pass
        return []
