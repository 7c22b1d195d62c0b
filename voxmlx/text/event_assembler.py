"""Tokens and their text -> words, pauses and the events that say so."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from voxmlx.audio.energy import EnergyDetector
from voxmlx.events import Event, TextDelta, TokenDecoded, UtteranceEnd, Word, WordFinal
from voxmlx.text.confidence_map import IDENTITY, ConfidenceMap
from voxmlx.text.replacements import Replacements
from voxmlx.text.utterances import UtteranceTracker
from voxmlx.text.words import WordAssembler

__all__ = ["EventAssembler"]


class EventAssembler:
    """Events of one stream, wherever its tokens are decoded: here or on a server.

    Its owner pushes the sound, and every token with the text that the token completed.
    What it holds does not grow.
    """

    def __init__(
        self,
        replacements: Mapping[str, str],
        pause_ms: int,
        confidence_map: ConfidenceMap = IDENTITY,
    ) -> None:
        """Raises HotwordError for a replacement that cannot be written."""
        self._energy = EnergyDetector()
        self._words = WordAssembler(self._energy, confidence_map)
        self._replacements = Replacements(replacements)
        self._utterances = UtteranceTracker(pause_ms, self._energy)

    def push_sound(self, samples: NDArray[Any]) -> None:
        """Hear more: [n] float32 at 16 kHz. A token looks at the sound before it."""
        self._energy.push(samples)

    @property
    def is_settled(self) -> bool:
        """Return whether blanks make nothing certain any more."""
        return self._words.is_settled and self._utterances.is_settled

    def push(self, token: TokenDecoded, text: str) -> list[Event]:
        """Return what the next token makes certain, after the token itself."""
        events: list[Event] = [TextDelta(text, token.time_ms)] if text else []
        words = self._words.push(token, text)
        end = self._utterances.push(token, words)
        return events + self.finalize(words, token.time_ms, end)

    def flush(self, text: str, duration_ms: int) -> list[Event]:
        """Return the last words, of which `text` is the end; nothing more follows."""
        events: list[Event] = [TextDelta(text, duration_ms)] if text else []
        words = self._words.flush(text, duration_ms)
        end = self._utterances.flush(words, duration_ms)
        return events + self.finalize(words, duration_ms, end, is_last=True)

    def finalize(
        self,
        words: Sequence[Word],
        time_ms: int,
        end: UtteranceEnd | None = None,
        *,
        is_last: bool = False,
    ) -> list[Event]:
        """Return what `words`, known at `time_ms`, and then a pause make certain.

        For words that come assembled; `push` does it for those of tokens. With
        `is_last` nothing is held back.
        """
        final = [certain for word in words for certain in self._replacements.push(word)]
        if is_last or end is not None:
            final += self._replacements.flush()
        events: list[Event] = [WordFinal(word, time_ms) for word in final]
        return events if end is None else [*events, end]
