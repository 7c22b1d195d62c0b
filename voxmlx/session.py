"""Samples in, events out: one stream, with the network that decodes it."""

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any, Self

import mlx.core as mx
from numpy.typing import NDArray

from voxmlx.checkpoint import Checkpoint
from voxmlx.config import AUDIO_TOKEN_MS, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.decoding.decoded import Decoded
from voxmlx.decoding.draft_decoder import DraftDecoder
from voxmlx.decoding.hotwords import BOOST, HotwordTrie
from voxmlx.decoding.loop import MAX_AUDIO_TOKENS_PER_STEP, compute
from voxmlx.decoding.network_requests import Request
from voxmlx.decoding.recovery import RecoveringDecoder
from voxmlx.decoding.speculation import MAX_POSITIONS, Speculation
from voxmlx.decoding.token_decoder import TokenDecoder
from voxmlx.errors import SessionError
from voxmlx.events import Event, TokenDecoded
from voxmlx.forks import refuse_fork
from voxmlx.model.state import VoxtralState
from voxmlx.model.voxtral import VoxtralRealtime
from voxmlx.session_options import (
    DRAFT_WINDOW_MS,
    check_checkpoint,
    check_draft,
    check_flag,
    check_options,
    check_replacements,
    open_guards,
    open_hotwords,
)
from voxmlx.text.utterances import DEFAULT_PAUSE_MS
from voxmlx.timeline import Timeline, TokenAudio

__all__ = ["Session", "Work"]


# Sessions of one process compute in turns: their checkpoint and MLX are shared.
_computing = threading.RLock()

# What a stream wants of the network next; in the end, what became certain.
Work = Generator[Request, Any, list[Event]]


class Session:
    """One stream of 16 kHz mono sound, transcribed as it comes.

    Sound may arrive in pieces of any size; what comes out does not depend on how it
    was cut. A session lives as long as its owner wants: nothing of it grows. It has
    no clock, file or thread of its own. Many sessions, each with its own delay, can
    share one checkpoint.

    Threads: a session may be opened on one thread and pushed from others, one at a
    time (`asyncio.to_thread`, the workers of a GUI). Two calls of `push`, `flush` or
    `finish` at once raise SessionError for the second. Its sound is not pushed, and
    the session stays whole. `voxmlx.stream` puts calls in order. Calls of different
    sessions wait for each other.

    Processes: MLX cannot compute in a child that was forked after a model was loaded.
    There `load`, a session and `voxmlx.stream` raise SessionError at once. Use the
    start method "spawn", or fork before the first `load`.

    The model's end-of-sequence id is masked, so it can neither end nor reset a
    session: in a live stream it only marks a pause, and a decoder that is fed it
    continues where no training sequence ever went.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        delay_ms: int | None = None,
        confidence: bool = False,
        alternatives: int = 0,
        guards: Sequence[str] = (),
        hotwords: Sequence[str] | HotwordTrie = (),
        hotword_boost: float = BOOST,
        replacements: Mapping[str, str] | None = None,
        pause_ms: int = DEFAULT_PAUSE_MS,
        speculate: bool | Speculation = False,
        kv_bits: int | None = None,
        draft_delay_ms: int | None = None,
        draft_window_ms: int = DRAFT_WINDOW_MS,
        silence_block: int = 1,
    ) -> None:
        """Open a stream whose text lags the sound by `delay_ms`.

        Without `delay_ms`, the delay is the checkpoint's own (`Checkpoint.delay_ms`).
        `confidence` gives ids and words their probabilities, `alternatives` every id
        the so many most probable ones. `guards` are names of GUARDS; a session with
        them differs only where one acts, which it says. `hotwords` are phrases to
        listen for, each word of them favoured by `hotword_boost` logits in all (or
        a trie of them, with its own boost: a large one takes seconds to make),
        `replacements` what final words to write otherwise (not the TextDeltas, which
        are sooner). An UtteranceEnd comes after `pause_ms` without speech. `speculate`
        decodes sound that is there already, a file's or a backlog's, several ids at a
        time where that is faster; it changes no id, but for near ties in the last bits. A
        Speculation instead of True has its own clock or number of guesses, and is of this
        session alone. `kv_bits` is how the session remembers the last eleven minutes: 16
        (the default) in the model's dtype, 8 in about half the memory.

        With `draft_delay_ms`, shorter than the delay, DraftChanged events tell sooner
        what may follow the text. A second decoder row takes the same passes, so weights
        are read once for both. Its rings hold the last `draft_window_ms` of sound, or the
        model's window where that is shorter. All other events are those without it.

        `silence_block` is how many audio tokens of silence, at most, are collected and
        stepped together, 1 to 16. Where no text is due, nobody waits for those ids; the
        first audio token that may be speech ends the collection at once. It changes no
        id, but for near ties in the last bits. 8 read the weights an eighth as often, so a
        machine stays cool.

        Raises DelayError unless the delay is one of LEGAL_DELAYS_MS, HotwordError
        for a phrase or replacement that is empty or cannot be written, and
        SessionError for any other value that is not possible.
        """
        refuse_fork()
        check_checkpoint(checkpoint)
        if kv_bits is None:
            kv_bits = checkpoint.kv_bits
        check_options(alternatives, pause_ms, kv_bits, silence_block)
        rules = open_guards(guards)
        trie = open_hotwords(checkpoint.tokenizer, hotwords, hotword_boost)
        replacements = check_replacements(replacements)
        confidence = check_flag("confidence", confidence)
        if delay_ms is None:
            delay_ms = checkpoint.delay_ms
        if draft_delay_ms is not None:
            check_draft(draft_delay_ms, delay_ms, draft_window_ms)
        lookahead = checkpoint.model.mel.lookahead
        self.timeline = Timeline(
            checkpoint.tokenizer,
            # What is left of the silence that a state of `open_state` has heard.
            n_before=SAMPLES_PER_AUDIO_TOKEN - lookahead,
            lookahead=lookahead,
            delay_ms=delay_ms,
            has_guards=bool(rules),
            replacements=replacements,
            pause_ms=pause_ms,
            confidence_map=checkpoint.confidence_map,
            draft_delay_ms=draft_delay_ms,
            silence_block=silence_block,
        )
        self._model = checkpoint.model
        self._vocab_size = checkpoint.tokenizer.vocab_size
        # A session's own loop has a clock; another's hands in a Speculation of its own.
        if isinstance(speculate, Speculation):
            speculation = speculate
        else:
            is_asked = check_flag("speculate", speculate)
            speculation = Speculation(perf_counter) if is_asked else None
        # All positions of a pass may have to be taken back.
        n_in_block = silence_block if silence_block > 1 else 0
        n_trimmable = n_in_block if speculation is None else MAX_POSITIONS
        open_state = partial(
            checkpoint.model.open_state,
            delay_ms,
            kv_bits=kv_bits,
            n_trimmable=n_trimmable,
        )
        draft = None
        with _computing:
            state = open_state()
            if draft_delay_ms is not None:
                draft = _open_draft(
                    checkpoint.model,
                    draft_delay_ms,
                    window_ms=draft_window_ms,
                    kv_bits=kv_bits,
                    n_trimmable=n_trimmable,
                    speculation=speculation and speculation.for_another_stream(),
                )
        self._decoder = TokenDecoder(
            state,
            rules=rules,
            hotwords=trie,
            has_probabilities=confidence,
            n_alternatives=alternatives,
            speculation=speculation,
        )
        self._n_drafted = 0  # positions whose draft id was emitted
        self._n_skipped = 0  # audio tokens to come that are not decoded
        self._draft = draft
        self._recovering = RecoveringDecoder(self._decoder, open_state, draft)
        self.is_finished = False
        self._in_use = threading.Lock()
        self._last_events: list[Event] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish the stream; `finish` then returns its last events, once.

        After an exception the stream is left as it is: `finish` still brings out the
        words that were heard.
        """
        if kind is None:
            self._last_events = self.finish()

    @property
    def delay_ms(self) -> int:
        return self.timeline.delay_ms

    @property
    def speculation(self) -> Speculation | None:
        """Its guesses at ids, and how many came true; None without `speculate`."""
        return self._decoder.speculation

    @property
    def state(self) -> VoxtralState:
        """Everything that the network remembers of the stream."""
        return self._decoder.state

    def arrays(self) -> list[mx.array]:
        """Return all arrays on the device: of the state first, history, open trial."""
        return self._recovering.arrays()

    @property
    def duration_ms(self) -> int:
        """Sound heard so far."""
        return self.timeline.duration_ms

    @property
    def samples_wanted(self) -> int:
        """Samples to push until the next audio token is decoded; 0 if one is due."""
        return self.timeline.samples_wanted

    @property
    def is_due(self) -> bool:
        """Return whether there is `work` to do."""
        if self.is_finished:
            return False
        return self.samples_wanted == 0 or self.timeline.is_ended

    def push(self, samples: NDArray[Any]) -> list[Event]:
        """Hear more sound; returns what it made certain.

        `samples` is one-dimensional, of any length: float32 or float64 in [-1, 1],
        or int16. Raises AudioError for anything else and for NaN or infinite
        values, before any of it is heard; SessionError after `finish`, while another
        thread is in a call, and in a forked child.
        """
        with self._exclusive():
            self.timeline.push(samples)
            return self._step_all()

    def replay(
        self, samples: NDArray[Any], token_ids: Sequence[int | TokenDecoded]
    ) -> list[Event]:
        """Hear again what an earlier session heard, and give it that session's ids.

        For going on after a crash: `samples` is all sound that was pushed, as `push`
        takes it, `token_ids` what is left of the ids. Ids that are known are not
        decoded, only given to the network, up to 32 in a pass; what lies more than
        12 minutes back, the network does not hear at all. Sound without an id is
        decoded as usual; ids without sound are forgotten. Returns the events of the
        earlier session, and what follows. Then the stream goes on with `push`.

        Probabilities, alternatives and guards are those of the given TokenDecoded
        events; a bare id has none. Raises SessionError if anything was pushed before,
        else as `push` does.
        """
        pieces = self.replay_pieces([samples], len(samples), token_ids)
        return [event for events in pieces for event in events]

    def replay_pieces(
        self,
        pieces: Iterable[NDArray[Any]],
        n_samples: int,
        token_ids: Sequence[int | TokenDecoded],
    ) -> Iterator[list[Event]]:
        """Do as `replay`, a piece at a time: yield what each of them made certain.

        The pieces hold `n_samples` in all.
        """
        if self.duration_ms:
            raise SessionError(
                "replay after push: the stream has begun; replay into a new Session"
            )
        known = [_known(token) for token in token_ids]
        vocab_size = self._vocab_size
        for one in known:
            if not 0 <= one.token_id < vocab_size:
                raise SessionError(
                    f"token id {one.token_id} is outside 0..{vocab_size - 1}: is it of "
                    "another model?"
                )
        n_positions = self.timeline.n_tokens_after(n_samples)
        self._n_skipped = self._decoder.set_known(known, n_positions)
        try:
            for piece in pieces:
                yield self.push(piece)
        finally:
            self._decoder.forget_known()

    def flush(self) -> list[Event]:
        """Bring out the words spoken so far without ending the stream.

        Does so by hearing silence, as the model was trained to: up to the next
        whole audio token, then the delay and 0.8 s more. The stream goes on after
        it, and its clock counts that silence.
        """
        with self._exclusive():
            self.timeline.flush()
            return self._step_all()

    def finish(self) -> list[Event]:
        """End the stream: its last words, then a `Finished`.

        Pads on the right as the reference does, so that the ids of a whole stream
        equal transformers' for the same sound. A second call returns nothing. After
        a `with` block the first call returns what the block's end brought out.
        """
        with self._exclusive():
            self.timeline.end()
            events, self._last_events = self._last_events, []
            return events + self._step_all()

    def work(self, max_tokens: int = MAX_AUDIO_TOKENS_PER_STEP) -> Work | None:
        """Return the work on the next whole audio tokens; None if there are none.

        For whoever steps several sessions together: see `Batch`. One piece of work
        is done to its end before the next is asked for. From one thread. Raises
        SessionError in a forked child.
        """
        refuse_fork()
        if self._n_skipped:
            heard = self.timeline.next_audio(min(max_tokens, self._n_skipped))
            if heard is not None:
                return self._skip_audio(heard)
        if self.timeline.is_collecting:
            return None
        heard = self.timeline.next_audio(max_tokens)
        if heard is not None:
            return self._decode_audio(heard)
        if self.timeline.is_ended and not self.is_finished:
            self.is_finished = True
            return self._finish()
        return None

    def _decode_audio(self, heard: TokenAudio) -> Work:
        yield from self._recovering.step(
            heard.samples, heard.speech, is_quiet=heard.is_quiet
        )
        return self._emit_certain()

    def _skip_audio(self, heard: TokenAudio) -> Work:
        """Give out known ids without the network, as a generator that asks nothing."""
        self._n_skipped -= len(heard.speech)
        self._recovering.skip(heard.speech)
        return self._emit_certain()
        yield

    def _finish(self) -> Work:
        yield from self._recovering.finish()
        return self._emit_certain() + self.timeline.emit_end()

    def _emit_certain(self) -> list[Event]:
        """Events of the ids that became certain."""
        certain = self._recovering.take()
        if self._draft is None:
            return [event for one in certain for event in self.timeline.emit(one)]
        # Position by position, as if each had come alone.
        events: list[Event] = []
        waiting = deque(certain)
        for token_id in self._draft.take():
            self._n_drafted += 1
            while waiting and waiting[0].certain_at <= self._n_drafted:
                events += self.timeline.emit(waiting.popleft())
            events += self.timeline.emit_draft(token_id)
        return events + [event for one in waiting for event in self.timeline.emit(one)]

    def _step_all(self) -> list[Event]:
        """Do all the work there is; leave nothing lazy, so that any thread may go on."""
        events: list[Event] = []
        with _computing:
            while (work := self.work()) is not None:
                events += _run_alone(work, self._model)
            self._recovering.evaluate()
        return events

    @contextmanager
    def _exclusive(self) -> Generator[None]:
        """Hold the session for one call. Raises SessionError if it is held already."""
        refuse_fork()
        if not self._in_use.acquire(blocking=False):
            raise SessionError(
                "another call of this session is still running; push from one thread "
                "at a time, or use voxmlx.stream, which puts calls in order"
            )
        try:
            yield
        finally:
            self._in_use.release()


def _known(token: int | TokenDecoded) -> Decoded:
    if isinstance(token, int):
        return Decoded(token)
    alternatives = tuple((one.token_id, one.logprob) for one in token.alternatives)
    return Decoded(
        token.token_id, token.logprob, alternatives, token.guard, token.recovered
    )


def _run_alone(work: Work, model: VoxtralRealtime) -> list[Event]:
    """Do the work of one stream by itself."""
    try:
        request = next(work)
        while True:
            request = work.send(compute(model, request))
    except StopIteration as end:
        return end.value


def _open_draft(
    model: VoxtralRealtime,
    delay_ms: int,
    *,
    window_ms: int,
    kv_bits: int,
    n_trimmable: int,
    speculation: Speculation | None,
) -> DraftDecoder:
    open_state = partial(
        model.open_state,
        delay_ms,
        kv_bits=kv_bits,
        n_trimmable=n_trimmable,
        window=window_ms // AUDIO_TOKEN_MS,
    )
    return DraftDecoder(open_state, speculation)
