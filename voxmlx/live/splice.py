"""Events of streams that follow each other, as those of one stream.

A stream that has broken off goes on as another one, which hears the sound again from a
restart point: the beginning, a pause, or a word of a long speech. The second stream
says again what the first had said after that point.

States: FOLLOWING passes events on and notes them. After `restart` with something said
since that point comes ALIGNING: events wait until the second stream is beyond the last
thing said. Then both texts are compared, what was said is left out, and it is FOLLOWING
again. No event is taken back, whatever the second stream makes of the same sound.

Example: said "a b", restart at 0, the second stream says "a", "b", "c" -> "c" comes out.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from voxmlx.config import AUDIO_TOKEN_MS
from voxmlx.events import (
    DraftChanged,
    Event,
    Finished,
    GuardActed,
    Recovered,
    SoundWarning,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    WordFinal,
)
from voxmlx.text.words import changes, letters_of, pieces_of, starts_piece

__all__ = ["Splice", "aligned"]

# So much sound before the last word is heard again: what the encoder sees at once.
CONTEXT_MS = 15_000
# And at most so much, where nobody pauses.
_MAX_BACK_MS = 60_000
# How far beyond the last thing said a stream must be before texts are compared.
_BEYOND_MS = 2_000


@dataclass(frozen=True, slots=True)
class _Point:
    """A time at which a stream may begin anew, and how much was said before it."""

    ms: int
    n_words: int
    n_deltas: int


class Splice:
    """Events of one timeline. What it holds does not grow with the stream."""

    def __init__(self) -> None:
        self._points = deque([_Point(0, 0, 0)])
        # Of all that was said after the first point; counted from the very first.
        self._words: deque[WordFinal] = deque()
        self._deltas: deque[TextDelta] = deque()
        self._n_words_gone = self._n_deltas_gone = 0
        self._last_token_ms = self._said_ms = 0
        self._is_open = False  # words have come since the last end of an utterance
        # Of the present stream: its beginning, and what waits to be compared.
        self._base_ms = 0
        self._needs_lead = self._needs_word_lead = False
        self._point: _Point | None = None
        self._waiting: list[Event] = []

    @property
    def restart_ms(self) -> int:
        """Return the stream time from which sound would have to be heard again."""
        return self._points[0].ms

    def push(self, events: Sequence[Event]) -> list[Event]:
        """Take events of the present stream; return those that nobody has heard yet."""
        shifted = [self._led(_shifted(event, self._base_ms)) for event in events]
        if self._point is None:
            return self._noted(shifted)
        self._waiting += shifted
        return self.flush() if any(map(self._is_beyond, shifted)) else []

    def flush(self) -> list[Event]:
        """Return the events that still wait to be compared, as far as they are news."""
        waiting, self._waiting = self._waiting, []
        point, self._point = self._point, None
        return [] if point is None else self._noted(self._news(waiting, point))

    def silent_until(self, ms: int) -> None:
        """Note that the stream was decoded so far; so silence need not be kept."""
        if self._is_open or self._point is not None:
            return
        if ms - self._points[-1].ms >= CONTEXT_MS:
            self._add_point(ms)
            self._trim(ms)

    def restart(self, ms: int) -> None:
        """Begin another stream at `ms`, a multiple of 80 ms, not before `restart_ms`."""
        self._waiting.clear()
        self._base_ms = ms
        point = self._points[0]
        if ms > point.ms:  # the sound before is lost, and with it what was said there
            self._add_point(ms)
            while len(self._points) > 1:
                self._points.popleft()
            self._forget()
            point = self._points[0]
        self._needs_lead = point.n_deltas > 0
        self._needs_word_lead = point.n_words > 0
        is_repeated = any(self._since(point))
        self._point = point if is_repeated else None

    def _led(self, event: Event) -> Event:
        """Return an event with white space before the first text of a stream.

        A stream leaves out what its first word begins with; here it is no first word.
        """
        match event:
            case TextDelta(text=text) if self._needs_lead and text:
                self._needs_lead = False
                return replace(event, text=_lead(text) + text)
            case DraftChanged(text=text) if self._needs_lead and text:
                return replace(event, text=_lead(text) + text)
            case WordFinal(word=word) if self._needs_word_lead:
                self._needs_word_lead = False
                lead = word.lead or _lead(word.text)
                return replace(event, word=replace(word, lead=lead))
            case _:
                return event

    # ---- What was said.

    def _noted(self, events: Sequence[Event]) -> list[Event]:
        passed: list[Event] = []
        for event in events:
            match event:
                case TokenDecoded(time_ms=time_ms):
                    if time_ms <= self._last_token_ms:
                        continue
                    self._last_token_ms = time_ms
                case TextDelta():
                    self._deltas.append(event)
                    self._said_ms = max(self._said_ms, event.time_ms)
                case WordFinal(word=word):
                    self._words.append(event)
                    self._said_ms = max(self._said_ms, word.end_ms)
                    self._is_open = True
                    self._trim(word.end_ms)
                case UtteranceEnd(end_ms=end_ms, time_ms=time_ms):
                    if not self._is_open:
                        continue  # it was said before
                    self._is_open = False
                    self._add_point((end_ms + time_ms) // 2)
                case _:
                    pass
            passed.append(event)
        return passed

    def _add_point(self, ms: int) -> None:
        n_words = self._n_words_gone + len(self._words)
        n_deltas = self._n_deltas_gone + len(self._deltas)
        whole_ms = ms // AUDIO_TOKEN_MS * AUDIO_TOKEN_MS
        self._points.append(_Point(whole_ms, n_words, n_deltas))

    def _trim(self, certain_ms: int) -> None:
        """Leave points behind that are further back than need be."""
        points = self._points
        while len(points) > 1 and points[1].ms <= certain_ms - CONTEXT_MS:
            points.popleft()
        if certain_ms - points[0].ms > _MAX_BACK_MS:
            points[0] = self._point_in_speech(certain_ms - _MAX_BACK_MS // 2)
        self._forget()

    def _point_in_speech(self, ms: int) -> _Point:
        """Return the beginning of the first word from `ms` on."""
        n_words = next(
            (i for i, w in enumerate(self._words) if w.word.start_ms >= ms),
            len(self._words),
        )
        if n_words < len(self._words):
            ms = self._words[n_words].word.start_ms
        n_deltas = sum(delta.time_ms <= ms for delta in self._deltas)
        return _Point(
            ms // AUDIO_TOKEN_MS * AUDIO_TOKEN_MS,
            self._n_words_gone + n_words,
            self._n_deltas_gone + n_deltas,
        )

    def _forget(self) -> None:
        """Drop what was said before the first point."""
        while self._n_words_gone < self._points[0].n_words:
            self._words.popleft()
            self._n_words_gone += 1
        while self._n_deltas_gone < self._points[0].n_deltas:
            self._deltas.popleft()
            self._n_deltas_gone += 1

    def _since(self, point: _Point) -> tuple[list[str], str]:
        """Return the words and the text that were said after a point."""
        words = list(self._words)[point.n_words - self._n_words_gone :]
        deltas = list(self._deltas)[point.n_deltas - self._n_deltas_gone :]
        return [w.word.text for w in words], "".join(d.text for d in deltas)

    # ---- What is said again.

    def _is_beyond(self, event: Event) -> bool:
        match event:
            case Finished():
                return True
            case UtteranceEnd(time_ms=time_ms):
                return time_ms > self._said_ms
            case TokenDecoded(time_ms=time_ms) | TextDelta(time_ms=time_ms):
                return time_ms > self._said_ms + _BEYOND_MS
            case _:
                return False

    def _news(self, events: Sequence[Event], point: _Point) -> list[Event]:
        """Return the events without what was said before."""
        words, text = self._since(point)
        again = "".join(e.text for e in events if isinstance(e, TextDelta))
        n_words = aligned(
            words, [e.word.text for e in events if isinstance(e, WordFinal)]
        )
        n_chars = _n_chars_said(text, again)
        news: list[Event] = []
        for event in events:
            match event:
                case WordFinal() if n_words > 0:
                    n_words -= 1
                case DraftChanged() if n_chars > 0:
                    pass  # it follows text that is only being repeated
                case UtteranceEnd() if n_words > 0:
                    pass
                case TextDelta(text=text) if n_chars > 0:
                    rest = text[n_chars:]
                    n_chars -= len(text)
                    if rest:
                        news.append(replace(event, text=rest))
                case _:
                    news.append(event)
        return news


def aligned(said: Sequence[str], again: Sequence[str]) -> int:
    """Return how many words of `again` stand for all of `said`.

    It is the beginning of `again` with the fewest changes. Of several, it is the one
    that ends with the last word said, or else the one of the same length.
    """
    plain, others = [_plain(word) for word in said], [_plain(word) for word in again]
    if others[: len(plain)] == plain:
        return len(plain)
    n_changes = changes(plain, others)

    def rank(n: int) -> tuple[int, bool, int]:
        ends_alike = n > 0 and others[n - 1] == plain[-1]
        return n_changes[n], not ends_alike, abs(n - len(said))

    return min(range(len(again) + 1), key=rank)


def _n_chars_said(said: str, again: str) -> int:
    """Return how much of the text `again` stands for the text `said`."""
    if again.startswith(said):
        return len(said)
    if not said.strip():
        return 0
    pieces = _pieces(again)
    said_pieces = [piece for _, piece in _pieces(said)]
    n = aligned(said_pieces, [piece for _, piece in pieces])
    if n == 0:
        return 0
    at, piece = pieces[n - 1]
    # The last word may have been said in part.
    is_part = piece.startswith(said_pieces[-1])
    return at + (len(said_pieces[-1]) if is_part else len(piece))


def _pieces(text: str) -> list[tuple[int, str]]:
    """Return the words of a text, and where each begins."""
    found: list[tuple[int, str]] = []
    for match in re.finditer(r"\S+", text):
        at = match.start()
        for piece in pieces_of(match.group()):
            found.append((at, piece))
            at += len(piece)
    return found


def _lead(text: str) -> str:
    """Return a space, unless the text has one or its script has none."""
    first = text[0]
    return "" if first.isspace() or starts_piece(first, first) else " "


def _plain(word: str) -> str:
    """Return a word as it is compared: without its case and its punctuation."""
    return letters_of(word) or word


def _shifted(event: Event, ms: int) -> Event:
    """Return an event of a stream that began at `ms` of the timeline."""
    if ms == 0:
        return event
    n_tokens = ms // AUDIO_TOKEN_MS
    match event:
        case TokenDecoded(index=index, time_ms=time_ms):
            return replace(event, index=index + n_tokens, time_ms=time_ms + ms)
        case WordFinal(word=word, time_ms=time_ms):
            word = replace(word, start_ms=word.start_ms + ms, end_ms=word.end_ms + ms)
            return WordFinal(word, time_ms + ms)
        case UtteranceEnd(start_ms=start_ms, end_ms=end_ms, time_ms=time_ms):
            return UtteranceEnd(start_ms + ms, end_ms + ms, time_ms + ms)
        case Finished(duration_ms=duration_ms, n_tokens=n):
            return Finished(duration_ms + ms, n + n_tokens)
        case TextDelta() | DraftChanged() | GuardActed() | Recovered() | SoundWarning():
            return replace(event, time_ms=event.time_ms + ms)
