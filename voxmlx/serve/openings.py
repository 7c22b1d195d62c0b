"""Preparations of streams before they are opened: hot words, and delays' prefixes."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from voxmlx.checkpoint import Checkpoint
from voxmlx.config import AUDIO_TOKEN_MS
from voxmlx.decoding.hotwords import HotwordTrie
from voxmlx.decoding.speculation import Speculation
from voxmlx.errors import HotwordError
from voxmlx.serve.slot import Opening, Slot
from voxmlx.serve.stream_options import StreamOptions
from voxmlx.session import Session
from voxmlx.session_options import DRAFT_WINDOW_MS
from voxmlx.text.tokenizer import Tokenizer

__all__ = ["Openings"]

# Lists of hot words that are kept: assistants send the same one with every command.
_MAX_LISTS = 8

_Key = tuple[tuple[str, ...], bool]

# Delay of a prefix in ms, and the window of its rings; None for the model's own.
_Prefix = tuple[int, int | None]


class Openings:
    """Preparations of streams, done once for each delay and once for each stream.

    Passes of a prefix are the caller's to time. Hot words become ids on a thread of
    their own: many of them take seconds.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        kv_bits: int,
        guards: tuple[str, ...],
        wake: Callable[[], None],
        *,
        silence_block: int = 1,
    ) -> None:
        """`wake` is called, on any thread, when a stream may have become ready.

        `silence_block` is that of live streams; see Session.
        """
        self._checkpoint = checkpoint
        self._kv_bits = kv_bits
        self._guards = guards
        self._silence_block = silence_block
        self._wake = wake
        # What is left to do for each.
        self._prefixes: dict[_Prefix, Iterator[None]] = {}
        self._hotword_maker = ThreadPoolExecutor(1, "voxmlx-hotwords")
        self._made_lately: dict[_Key, Future[HotwordTrie]] = {}

    @property
    def is_due(self) -> bool:
        """Return whether a pass of a prefix is to be done."""
        return bool(self._prefixes)

    def is_ready(self, slot: Slot, options: StreamOptions) -> bool:
        """Return whether nothing is left to prepare; else it is begun."""
        prefixes = _prefixes(options)
        if slot.opening is None:
            for one in prefixes:
                self._begin_prefix(one)
            slot.opening = Opening(self._made(options) if options.hotwords else None)
        made = slot.opening.hotwords
        return self._prefixes.keys().isdisjoint(prefixes) and (
            made is None or made.done()
        )

    def _begin_prefix(self, prefix: _Prefix) -> None:
        model, bits = self._checkpoint.model, self._kv_bits
        delay_ms, window = prefix
        if prefix in self._prefixes:
            return
        if not model.is_prepared(delay_ms, kv_bits=bits, window=window):
            passes = model.prepare(delay_ms, kv_bits=bits, window=window)
            self._prefixes[prefix] = passes

    def session(self, slot: Slot, options: StreamOptions) -> Session:
        """Open a stream that is ready. Raises HotwordError."""
        assert slot.opening is not None
        made, slot.opening = slot.opening.hotwords, None
        return Session(
            self._checkpoint,
            delay_ms=options.delay_ms,
            confidence=options.confidence,
            pause_ms=options.pause_ms,
            hotwords=() if made is None else made.result(),
            guards=self._guards,
            # A backlog's guesses are more rows of a pass that is for all anyway.
            speculate=Speculation(time.perf_counter),
            draft_delay_ms=options.draft_delay_ms,
            silence_block=self._silence_block if slot.kind == "live" else 1,
            kv_bits=self._kv_bits,
        )

    def step(self) -> None:
        """Do one pass of a prefix. A prefix whose pass fails is given up."""
        prefix, passes = next(iter(self._prefixes.items()))
        try:
            next(passes)
        except StopIteration:
            del self._prefixes[prefix]
            self._wake()  # streams that wait for it can be opened
        except BaseException:
            del self._prefixes[prefix]
            raise

    def stop(self) -> None:
        """End the thread of hot words."""
        self._hotword_maker.shutdown(cancel_futures=True)

    def _made(self, options: StreamOptions) -> Future[HotwordTrie]:
        """The trie of hot words, now or later; one of the last few is made once."""
        key = (options.hotwords, options.hotwords_are_hints)
        made = self._made_lately.pop(key, None)
        if made is None:
            tokenizer = self._checkpoint.tokenizer
            made = self._hotword_maker.submit(_trie, tokenizer, options)
            made.add_done_callback(lambda _: self._wake())
        self._made_lately[key] = made
        if len(self._made_lately) > _MAX_LISTS:
            del self._made_lately[next(iter(self._made_lately))]
        return made


def _prefixes(options: StreamOptions) -> list[_Prefix]:
    """The prefixes that a stream begins with: its own, and its draft's."""
    prefixes: list[_Prefix] = [(options.delay_ms, None)]
    if options.draft_delay_ms is not None:
        prefixes.append((options.draft_delay_ms, DRAFT_WINDOW_MS // AUDIO_TOKEN_MS))
    return prefixes


def _trie(tokenizer: Tokenizer, options: StreamOptions) -> HotwordTrie:
    """The hot words of a stream. Raises HotwordError for one that is not a mere hint."""
    try:
        return HotwordTrie(tokenizer, options.hotwords)
    except HotwordError:
        if not options.hotwords_are_hints:
            raise
    is_possible = partial(_is_possible, tokenizer)
    return HotwordTrie(tokenizer, filter(is_possible, options.hotwords))


def _is_possible(tokenizer: Tokenizer, hotword: str) -> bool:
    try:
        HotwordTrie(tokenizer, (hotword,))
    except HotwordError:
        return False
    return True
