"""Events of several channels -> the same without echoes, or with their words marked.

A word waits until it is known whether it is an echo. What comes behind it in its channel
waits too, so that the order of a channel's events stays. States of a word:

    waiting    another channel may still have a word that ends before it, or shortly after
    doubtful   louder words of others cover it: its neighbour decides
    own        it passes
    echo       it is left out, or marked

    waiting -> own        others are certain, and none of them was louder meanwhile
    waiting -> echo       it repeats a word, or is doubtful right after an echo
    waiting -> doubtful   -> echo if the next word within a second is a repeat, else own

Words are compared as they were heard: a dictionary writes those that pass. Else it might
write the word, and not its misheard echo, and nothing would be alike.

Where nobody else speaks, a word passes at once. Example: a loudspeaker says "turn on the
lights" on channel 2, and the microphone, channel 1, hears it 100 ms later. "turn" of
channel 1 waits until the "turn" of channel 2 is final, a few audio tokens, and is an
echo. "turn" of channel 2 passes as soon as channel 1 has gone on by 120 ms.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from voxmlx.audio.sound_levels import SoundLevels
from voxmlx.config import AUDIO_TOKEN_MS, STREAMING_PAD_ID
from voxmlx.events import (
    ChannelEvent,
    DraftChanged,
    Event,
    Finished,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.text.echo import (
    EARLY_MS,
    LATE_MS,
    NEAR_MS,
    MeasuredWord,
    is_covered,
    is_repeat,
)
from voxmlx.text.replacements import Replacements
from voxmlx.text.words import SETTLE_TOKENS

__all__ = ["EchoFilter"]

# A channel that is so far behind the others is not waited for.
_PATIENCE_MS = 10_000
# Words of a channel that are remembered while another one stands still.
_MAX_WORDS = 1000
# A word's end lies at most so long before its first id that is no PAD.
_BEFORE_ID_MS = 2 * AUDIO_TOKEN_MS


@dataclass(slots=True)
class _Channel:
    replacements: Replacements
    levels: SoundLevels = field(default_factory=SoundLevels)
    # Events in order, and of words how loud they were.
    waiting: deque[tuple[Event, MeasuredWord | None]] = field(
        default_factory=deque[tuple[Event, MeasuredWord | None]]
    )
    # Its latest words, for the other channels to look at.
    words: deque[MeasuredWord] = field(
        default_factory=lambda: deque[MeasuredWord](maxlen=_MAX_WORDS)
    )
    time_ms: int = 0
    # No word to come ends before.
    certain_ms: float = 0.0
    n_pads: int = SETTLE_TOKENS
    # The end of the latest word that was an echo.
    echo_ms: int | None = None
    # Of the utterance: the words that passed, and whether any did not.
    passed: tuple[int, int] | None = None
    has_echo: bool = False
    is_marking: bool = False
    undecided: str = ""
    draft: str = ""
    shown_draft: str = ""

    def undecided_text(self) -> str:
        """Return the words that wait, and what may follow them."""
        waiting = [one.word for _, one in self.waiting if one is not None]
        words = [*self.replacements.held, *waiting]
        text = "".join(word.lead + word.text for word in words)
        return text + self.undecided + self.draft


class EchoFilter:
    """Decides of every word of several channels whether it is an echo. Bounded memory.

    What it decides follows from the channels' events and sound alone.
    """

    def __init__(
        self,
        n_channels: int,
        *,
        keeps: bool = False,
        has_drafts: bool = False,
        replacements: Mapping[str, str] | None = None,
    ) -> None:
        """Leave echoes out; or if it `keeps` them, mark their words `is_echo`.

        Text that waits to be decided is told as a draft if it `has_drafts`. The words
        that pass are written as `replacements` say, which the sessions do without.
        Raises HotwordError for a replacement that cannot be written.
        """
        self._channels = [
            _Channel(Replacements(replacements or {})) for _ in range(n_channels)
        ]
        self.keeps = keeps
        self._has_drafts = has_drafts
        self.n_echoes = 0

    def push_sound(self, channel: int, samples: NDArray[Any]) -> None:
        """Hear more of a channel, from 1: [n] float32 at 16 kHz, before its events."""
        self._channels[channel - 1].levels.push(samples)

    def push(self, event: ChannelEvent) -> list[ChannelEvent]:
        """Return what the next event of a channel makes certain, of all channels."""
        self._note(self._channels[event.channel - 1], event.event)
        told: list[ChannelEvent] = []
        for number, channel in enumerate(self._channels, 1):
            if channel.waiting or self._has_drafts:
                told += [ChannelEvent(number, one) for one in self._take(channel)]
        if isinstance(event.event, WordFinal):
            self._forget()
        return told

    # ---- What is known.

    def _note(self, channel: _Channel, event: Event) -> None:
        measured: MeasuredWord | None = None
        match event:
            case TokenDecoded(token_id=token_id, time_ms=time_ms):
                # While text comes, its words may have ended before.
                if channel.n_pads == SETTLE_TOKENS:
                    certain_ms = float(time_ms - _BEFORE_ID_MS)
                    channel.certain_ms = max(channel.certain_ms, certain_ms)
                is_pad = token_id == STREAMING_PAD_ID
                channel.n_pads = min(channel.n_pads + 1, SETTLE_TOKENS) * is_pad
                channel.time_ms = time_ms
            case TextDelta(text=text):
                channel.undecided += text
                # The session takes it out of its draft with its next event.
                channel.draft = channel.draft.removeprefix(text)
                return
            case DraftChanged(text=text):
                channel.draft = text
                return
            case WordFinal(word=word):
                channel.undecided = _without(channel.undecided, word)
                level_dbfs = channel.levels.level_dbfs(word.start_ms, word.end_ms)
                measured = MeasuredWord(word, level_dbfs)
                channel.words.append(measured)
                channel.certain_ms = max(channel.certain_ms, word.end_ms)
            case Finished():
                channel.certain_ms = math.inf
                channel.undecided = channel.draft = ""
            case _:
                pass
        channel.waiting.append((event, measured))

    def _others(self, channel: _Channel, word: Word) -> list[MeasuredWord] | None:
        """Return the others' words around a word's time; None if more may come."""
        is_late = channel.time_ms > word.end_ms + _PATIENCE_MS
        found: list[MeasuredWord] = []
        for other in self._channels:
            if other is channel:
                continue
            if other.certain_ms <= word.end_ms + EARLY_MS and not is_late:
                return None
            found += [
                one
                for one in other.words
                if word.start_ms - LATE_MS <= one.word.end_ms
                and one.word.start_ms <= word.end_ms + EARLY_MS
            ]
        return found

    def _forget(self) -> None:
        """Drop words that no word to come can repeat."""
        oldest_ms = min(_oldest_ms(channel) for channel in self._channels)
        for channel in self._channels:
            words = channel.words
            while words and words[0].word.end_ms < oldest_ms - _PATIENCE_MS:
                words.popleft()

    # ---- What is decided.

    def _is_echo(self, channel: _Channel) -> bool | None:
        """Return whether the first word that waits is an echo; None if it must wait."""
        is_near_echo = False
        before_ms: int | None = channel.echo_ms
        is_first = True
        for _, measured in channel.waiting:
            if measured is None:
                continue
            word = measured.word
            is_near = before_ms is not None and word.start_ms - before_ms <= NEAR_MS
            if is_first:
                is_near_echo = is_near
            elif not is_near:
                return False
            others = self._others(channel, word)
            if others is None:
                return None
            if is_repeat(measured, others):
                return True
            if not is_covered(measured, others):
                return False
            if is_near_echo:
                return True
            is_first, before_ms = False, word.end_ms
        # All words that wait are doubtful: one that comes soon may be a repeat.
        assert before_ms is not None
        return False if channel.certain_ms > before_ms + NEAR_MS else None

    def _take(self, channel: _Channel) -> list[Event]:
        told: list[Event] = []
        time_ms = channel.time_ms
        while channel.waiting:
            event, _ = channel.waiting[0]
            if isinstance(event, WordFinal):
                is_echo = self._is_echo(channel)
                if is_echo is None:
                    break
                told += self._decided(channel, event, is_echo)
            elif isinstance(event, UtteranceEnd):
                told += _written(channel.replacements.flush(), event.time_ms)
                told += self._ended(channel, event)
            else:
                if isinstance(event, Finished):
                    words = channel.replacements.flush()
                    told += _written(words, event.duration_ms)
                told.append(event)
            channel.waiting.popleft()
        if self._has_drafts:
            draft = channel.undecided_text()
            if draft != channel.shown_draft:
                channel.shown_draft = draft
                is_finished = bool(told) and isinstance(told[-1], Finished)
                told.insert(len(told) - is_finished, DraftChanged(draft, time_ms))
        return told

    def _decided(
        self, channel: _Channel, event: WordFinal, is_echo: bool
    ) -> list[Event]:
        word = event.word
        words: list[Word] = []
        if is_echo != channel.is_marking:  # no phrase goes on there
            words += channel.replacements.flush()
            channel.is_marking = is_echo
        if is_echo:
            self.n_echoes += 1
            channel.echo_ms = word.end_ms
            channel.has_echo = True
            if not self.keeps:
                return _written(words, event.time_ms)
            word = replace(word, is_echo=True)
        start_ms = word.start_ms if channel.passed is None else channel.passed[0]
        channel.passed = start_ms, word.end_ms
        words += channel.replacements.push(word)
        return _written(words, event.time_ms)

    def _ended(self, channel: _Channel, event: UtteranceEnd) -> list[Event]:
        """Return the utterance's end, as far as words of it have passed."""
        passed, has_echo = channel.passed, channel.has_echo
        channel.passed, channel.has_echo = None, False
        if not has_echo or self.keeps:
            return [event]
        if passed is None:
            return []
        return [replace(event, start_ms=passed[0], end_ms=passed[1])]


def _written(words: Sequence[Word], time_ms: int) -> list[Event]:
    """Return the events of words that pass."""
    return [
        event
        for word in words
        for event in (
            TextDelta(word.lead + word.text, time_ms),
            WordFinal(word, time_ms),
        )
    ]


def _oldest_ms(channel: _Channel) -> float:
    """Return the time before which no word is undecided."""
    starts = (one.word.start_ms for _, one in channel.waiting if one is not None)
    return min(channel.certain_ms, next(starts, math.inf))


def _without(text: str, word: Word) -> str:
    """Return what follows a word in the text that it begins; other words end it."""
    rest = text.lstrip()
    return rest[len(word.text) :] if rest.startswith(word.text) else ""
