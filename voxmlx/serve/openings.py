"""Preparations of streams before they are opened: hot words, and a delay's prefix."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from voxmlx.checkpoint import Checkpoint
from voxmlx.decoding.hotwords import HotwordTrie
from voxmlx.decoding.speculation import Speculation
from voxmlx.errors import HotwordError
from voxmlx.serve.protocol import StreamOptions
from voxmlx.serve.slot import Opening, Slot
from voxmlx.session import Session
from voxmlx.text.tokenizer import Tokenizer

__all__ = ["Openings"]

# Lists of hot words that are kept: assistants send the same one with every command.
_MAX_LISTS = 8

_Key = tuple[tuple[str, ...], bool]


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
        # Delay -> what is left to do for its prefix.
        self._prefixes: dict[int, Iterator[None]] = {}
        self._hotword_maker = ThreadPoolExecutor(1, "voxmlx-hotwords")
        self._made_lately: dict[_Key, Future[HotwordTrie]] = {}

    @property
    def is_due(self) -> bool:
        """Return whether a pass of a prefix is to be done."""
        return bool(self._prefixes)

    def is_ready(self, slot: Slot, options: StreamOptions) -> bool:
        """Return whether nothing is left to prepare; else it is begun."""
        delay_ms = options.delay_ms
        if slot.opening is None:
            model = self._checkpoint.model
            is_prepared = model.is_prepared(delay_ms, kv_bits=self._kv_bits)
            if not is_prepared and delay_ms not in self._prefixes:
                passes = model.prepare(delay_ms, kv_bits=self._kv_bits)
                self._prefixes[delay_ms] = passes
            slot.opening = Opening(self._made(options) if options.hotwords else None)
        made = slot.opening.hotwords
        return delay_ms not in self._prefixes and (made is None or made.done())

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
            speculate=slot.kind == "file" and Speculation(time.perf_counter),
            silence_block=self._silence_block if slot.kind == "live" else 1,
            kv_bits=self._kv_bits,
        )

    def step(self) -> None:
        """Do one pass of a prefix. A delay whose pass fails is given up."""
        delay_ms, passes = next(iter(self._prefixes.items()))
        try:
            next(passes)
        except StopIteration:
            del self._prefixes[delay_ms]
            self._wake()  # streams that wait for it can be opened
        except BaseException:
            del self._prefixes[delay_ms]
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
