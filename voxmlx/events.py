"""Events of a session: frozen values, all but DraftChanged final once emitted."""

from dataclasses import dataclass

__all__ = [
    "Alternative",
    "ChannelEvent",
    "DraftChanged",
    "Event",
    "Finished",
    "GuardActed",
    "Recovered",
    "SoundWarning",
    "TextDelta",
    "TokenDecoded",
    "UtteranceEnd",
    "Word",
    "WordFinal",
]


@dataclass(frozen=True, slots=True)
class Alternative:
    """An id the model might have chosen; `text` shows its bytes as far as it can."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenDecoded:
    """One id for one 80 ms audio token, blanks included.

    `index` counts from 0 after the prompt. `time_ms` is the stream time the id
    speaks about: a word marker here says that a word ended at about `time_ms`.
    `logprob` (natural, in the model's own distribution, before any guard or hot word)
    and `alternatives` (its most probable ids, in that order) are there if they were
    asked for. `guard` names the guard without which it would have been another id,
    `recovered` what was not finite before it.
    """

    token_id: int
    index: int
    time_ms: int
    logprob: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    guard: str | None = None
    recovered: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that follows everything emitted before it and never changes."""

    text: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class DraftChanged:
    """The text that may follow all TextDeltas so far, by a shorter delay.

    It may change: each replaces the one before as a whole, with "" where nothing more
    is known. It never repeats what is confirmed. `time_ms` is the stream time that the
    draft has come to.
    """

    text: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Word:
    """A word, or one character of a language written without spaces, and when.

    `text` holds no white space, punctuation is part of it; `lead` is the white
    space before it, often a space. Times are stream time. `confidence` says
    how often such words are right: the geometric mean of its tokens' probabilities,
    through the model's `confidence_map`. It is None if nobody asked for it. `is_echo`
    marks a word that came again from another channel, where such words are kept.
    """

    text: str
    start_ms: int
    end_ms: int
    confidence: float | None = None
    lead: str = " "
    is_echo: bool = False


@dataclass(frozen=True, slots=True)
class WordFinal:
    """A word that will not change, known at `time_ms`; words come in order."""

    word: Word
    time_ms: int


@dataclass(frozen=True, slots=True)
class UtteranceEnd:
    """A pause has followed the words between `start_ms` and `end_ms`.

    Nobody was heard speaking from `end_ms` until `time_ms`, when this was known.
    """

    start_ms: int
    end_ms: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class GuardActed:
    """The guard called `guard` changed what the model would have said.

    Once for every stretch it acts in, at its first changed id.
    """

    guard: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """Numbers of the network were not finite, and the stream went on from new ones.

    `cause` is the part that held them, "encoder" or "decoder". All text before stands.
    The ids from `time_ms` on come from a network that heard the last 15 s again.
    """

    cause: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class SoundWarning:
    """Something was wrong with the sound of a file, and how it was read all the same.

    `code` names the kind for programs: tracks, cut_short, wrong_length, damaged, gap, joined,
    inverted, no_words. `message` is one sentence. `time_ms` is where it was noticed.
    """

    code: str
    message: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The stream is over: `duration_ms` of sound gave `n_tokens` ids."""

    duration_ms: int
    n_tokens: int


Event = (
    TokenDecoded
    | TextDelta
    | DraftChanged
    | WordFinal
    | UtteranceEnd
    | GuardActed
    | Recovered
    | SoundWarning
    | Finished
)


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    """An event of one channel, from 1, of a file whose channels are split."""

    channel: int
    event: Event
