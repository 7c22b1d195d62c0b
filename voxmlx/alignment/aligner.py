"""Sound and its text -> the times of its words, as the sound comes."""

import codecs
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.alignment.lattice import make_lattice
from voxmlx.alignment.path_search import PathSearch, PathStep
from voxmlx.alignment.units import TextUnit, text_units
from voxmlx.checkpoint import Checkpoint
from voxmlx.config import (
    AUDIO_TOKEN_MS,
    EOS_ID,
    SAMPLES_PER_AUDIO_TOKEN,
    STREAMING_PAD_ID,
    STREAMING_WORD_ID,
)
from voxmlx.decoding.loop import MAX_AUDIO_TOKENS_PER_STEP, decode_all
from voxmlx.decoding.network_requests import DecodeRequest
from voxmlx.errors import SessionError
from voxmlx.events import TextDelta, TokenDecoded, UtteranceEnd, Word, WordFinal
from voxmlx.forks import refuse_fork
from voxmlx.kernels.evaluation import as_numpy, evaluate
from voxmlx.text.event_assembler import EventAssembler
from voxmlx.text.tokenizer import Tokenizer
from voxmlx.text.utterances import DEFAULT_PAUSE_MS
from voxmlx.timeline import Timeline

__all__ = ["ALIGNED", "MISSING", "UNWRITTEN", "AlignedWord", "Aligner"]

ALIGNED, MISSING, UNWRITTEN = "aligned", "missing", "unwritten"


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """A word of the text, or one that the text lacks; times are stream time.

    `status` is "aligned"; "missing" for a word that the sound does not hold, with the
    time where it would be; "unwritten" for one that only the sound holds. `index` counts
    the words of the text, tokens of a language without spaces one by one; it is None for
    an unwritten word. `confidence` is the geometric mean of the probabilities of the
    word's tokens.
    """

    text: str
    start_ms: int
    end_ms: int
    status: str
    index: int | None
    confidence: float | None = None
    lead: str = " "


class Aligner:
    """One stream of 16 kHz mono sound, against the text that is said in it.

    The network hears the sound as in a Session. But what it is told to have written is
    the best path of the text so far, not its own choice. Memory does not grow with the
    sound: words come out once all paths that are left agree on them, two minutes later
    at most. Sound may arrive in pieces of any size; from one thread.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        text: str,
        *,
        delay_ms: int | None = None,
        kv_bits: int = 16,
        pause_ms: int = DEFAULT_PAUSE_MS,
    ) -> None:
        """Raises DelayError, and TextError for a text that cannot be aligned."""
        refuse_fork()
        units = text_units(text, checkpoint.tokenizer)
        delay_ms = checkpoint.delay_ms if delay_ms is None else delay_ms
        self._model = checkpoint.model
        lookahead = self._model.mel.lookahead
        self._timeline = Timeline(
            checkpoint.tokenizer,
            n_before=SAMPLES_PER_AUDIO_TOKEN - lookahead,
            lookahead=lookahead,
            delay_ms=delay_ms,
            has_guards=False,
            replacements={},
            pause_ms=pause_ms,
        )
        self._state = self._model.open_state(delay_ms, kv_bits=kv_bits)
        self._n_before = SAMPLES_PER_AUDIO_TOKEN - lookahead
        self._search = PathSearch(make_lattice(units))
        self._choice = _TextChoice(self._search, checkpoint.tokenizer.vocab_size)
        self._words = _WordTimes(units, checkpoint.tokenizer, pause_ms)

    @property
    def duration_ms(self) -> int:
        """Sound heard so far."""
        return self._timeline.duration_ms

    def push(self, samples: NDArray[Any]) -> list[AlignedWord | UtteranceEnd]:
        """Hear more, as `Session.push` takes it; return what became certain.

        Raises AudioError, and SessionError after `finish`.
        """
        self._timeline.push(samples)
        return self._step()

    def finish(self) -> list[AlignedWord | UtteranceEnd]:
        """End the stream: its last words, and those of the text that did not come."""
        self._timeline.end()
        found = self._step()
        skipped = self._search.end()
        found += self._words.push(self._search.take())
        return found + self._words.flush(skipped, self.duration_ms)

    def _step(self) -> list[AlignedWord | UtteranceEnd]:
        found: list[AlignedWord | UtteranceEnd] = []
        while True:
            heard = self._timeline.next_audio(MAX_AUDIO_TOKENS_PER_STEP)
            if heard is None:
                return found
            n_silent = min(self._n_before, len(heard.samples))
            self._n_before -= n_silent
            self._words.push_sound(heard.samples[n_silent:])
            audio = self._model.encode(heard.samples[None], self._state)
            decode_all(self._model, DecodeRequest(audio, self._state, self._choice))
            evaluate(self._state.arrays())
            found += self._words.push(self._search.take())


class _TextChoice:
    """Chooses the id of the best path through the text, once per audio token."""

    def __init__(self, search: PathSearch, vocab_size: int) -> None:
        self._search = search
        ids = mx.arange(vocab_size)
        self._is_blank = (ids == STREAMING_PAD_ID) | (ids == EOS_ID)

    def __call__(self, logits: mx.array) -> mx.array:
        row = logits[0].astype(mx.float32)
        others = mx.where(self._is_blank, -mx.inf, row)
        filler = mx.argmax(others)
        ids = mx.array(self._search.token_ids)
        found = mx.concatenate([row[ids], others[filler][None]]) - mx.logsumexp(row)
        logprobs = as_numpy(found)
        if not np.isfinite(logprobs).all():
            raise SessionError(
                "numbers of the network are not finite; try --dtype float32"
            )
        best: Any = filler.item()
        chosen = self._search.push(logprobs[:-1], best, float(logprobs[-1]))
        return mx.array([chosen], mx.int32)


@dataclass(slots=True)
class _Span:
    """Characters to come out of the assembler that are one unit, or a filler's."""

    n_chars: int
    unit: int | None
    status: str
    logprobs: list[float] = field(default_factory=list[float])
    start_ms: int | None = None
    end_ms: int = 0
    text: str = ""


class _WordTimes:
    """Steps of the path -> words with their times.

    Each step becomes a token and its text, as the model would have written them. So
    words get their times as they do in a session.
    """

    def __init__(
        self, units: list[TextUnit], tokenizer: Tokenizer, pause_ms: int
    ) -> None:
        self._units = units
        self._tokenizer = tokenizer
        self._assembler = EventAssembler({}, pause_ms)
        self._sound: deque[NDArray[np.float32]] = deque()
        self._spans: deque[_Span] = deque()
        self._n_steps = self._n_heard = 0
        self._filler: _Span | None = None
        self._last: _Span | None = None  # the text that a step wrote last
        self._decoder = _utf8()
        self._last_end_ms = 0

    def push_sound(self, samples: NDArray[np.float32]) -> None:
        """Hear more, which is asked about when its steps come."""
        n = SAMPLES_PER_AUDIO_TOKEN
        self._sound += [samples[i : i + n] for i in range(0, len(samples), n)]

    def push(self, steps: list[PathStep]) -> list[AlignedWord | UtteranceEnd]:
        return [found for step in steps for found in self._push(step)]

    def flush(
        self, skipped: range, duration_ms: int
    ) -> list[AlignedWord | UtteranceEnd]:
        """Return the last words, and units that are skipped at the end."""
        found = list(self._taken(self._assembler.flush("", duration_ms)))
        self._skip(skipped)
        return [*found, *self._done()]

    def _push(self, step: PathStep) -> Iterator[AlignedWord | UtteranceEnd]:
        index = self._n_steps
        self._n_steps += 1
        # A little more than the token speaks about, so that it is decided.
        while self._sound and self._n_heard < (index + 2) * SAMPLES_PER_AUDIO_TOKEN:
            samples = self._sound.popleft()
            self._n_heard += len(samples)
            self._assembler.push_sound(samples)
        self._skip(step.skipped)
        token = TokenDecoded(
            step.token_id, index, (index + 1) * AUDIO_TOKEN_MS, step.logprob
        )
        yield from self._taken(self._assembler.push(token, self._text(step)))

    def _skip(self, units: range) -> None:
        for i in units:
            self._spans.append(_Span(0, i, MISSING))
        if units:
            self._filler = self._last = None

    def _text(self, step: PathStep) -> str:
        """Return the text that a step is taken to have written."""
        if step.unit is not None:
            return self._text_of_unit(step, step.unit)
        if step.is_filler and step.token_id != STREAMING_WORD_ID:
            return self._text_of_filler(step)
        if step.token_id == STREAMING_WORD_ID:
            self._filler = None
        else:
            self._filler = self._last = None
        return ""

    def _text_of_unit(self, step: PathStep, i: int) -> str:
        if not step.is_first:
            assert self._last is not None
            self._last.logprobs.append(step.logprob)
            return ""
        unit = self._units[i]
        self._filler = None
        self._last = _Span(len(unit.text), i, ALIGNED, [step.logprob])
        self._spans.append(self._last)
        return unit.lead + unit.text

    def _text_of_filler(self, step: PathStep) -> str:
        if self._filler is None:
            self._decoder = _utf8()
        text = self._decoder.decode(self._tokenizer.piece(step.token_id))
        bare = text.strip()
        is_tail = self._last is not None and not text.startswith(" ")
        if self._filler is None and (is_tail or not any(map(str.isalnum, bare))):
            return ""  # punctuation, or an ending of the word before
        if self._filler is None or text.startswith(" "):
            self._filler = self._last = _Span(0, None, UNWRITTEN)
            self._spans.append(self._filler)
        self._filler.n_chars += len("".join(text.split()))
        self._filler.logprobs.append(step.logprob)
        return text

    def _taken(self, events: list[Any]) -> Iterator[AlignedWord | UtteranceEnd]:
        """Give the assembler's words to their spans; yield those that are done."""
        for event in events:
            if isinstance(event, TextDelta):
                continue
            if isinstance(event, UtteranceEnd):
                yield event
            if isinstance(event, WordFinal):
                yield from self._place(event.word)

    def _place(self, word: Word) -> Iterator[AlignedWord]:
        rest = word.text
        while rest:
            yield from self._done()
            span = self._spans[0]
            n = min(len(rest), span.n_chars)
            span.start_ms = word.start_ms if span.start_ms is None else span.start_ms
            span.end_ms = word.end_ms
            span.text += rest[:n]
            span.n_chars -= n
            rest = rest[n:]
        yield from self._done()

    def _done(self) -> Iterator[AlignedWord]:
        """Yield the spans at the head that wait for nothing more."""
        while self._spans and self._spans[0].n_chars == 0:
            span = self._spans.popleft()
            unit = None if span.unit is None else self._units[span.unit]
            if span.start_ms is None:
                span.start_ms = span.end_ms = self._last_end_ms
            self._last_end_ms = span.end_ms
            mean = sum(span.logprobs) / len(span.logprobs) if span.logprobs else None
            yield AlignedWord(
                span.text if unit is None else unit.text,
                span.start_ms,
                span.end_ms,
                span.status,
                span.unit,
                None if mean is None else float(np.exp(mean)),
                " " if unit is None else unit.lead,
            )


def _utf8() -> Any:
    return codecs.getincrementaldecoder("utf-8")("replace")
