"""Sessions of a live command: a loaded model, and what jsonl says of its streams."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from voxmlx.checkpoint import Checkpoint
from voxmlx.cli.arguments import check_draft_delay, chosen_delay_ms, load_model
from voxmlx.cli.word_arguments import word_options
from voxmlx.session import Session
from voxmlx.text.journal import settings_key

__all__ = ["LocalSessions", "open_sessions"]


@dataclass(frozen=True, slots=True)
class LocalSessions:
    """Sessions that share a model; `head` tells jsonl the model and the options.

    `open_session` opens another one, with a delay of its own.
    """

    checkpoint: Checkpoint
    sessions: tuple[Session, ...]
    open_session: Callable[[int], Session]
    head: Mapping[str, Any]


def open_sessions(
    arguments: argparse.Namespace,
    *,
    has_confidence: bool,
    n_sessions: int = 1,
    replaces: bool = True,
) -> LocalSessions:
    """Load the model of the arguments and open so many sessions of it.

    Unless it `replaces`, their words are as they were heard: an EchoFilter replaces them.
    Raises CheckpointError, DelayError and HotwordError.
    """
    checkpoint = load_model(arguments)
    delay_ms = chosen_delay_ms(arguments, checkpoint)
    check_draft_delay(arguments, delay_ms)
    options = word_options(arguments, checkpoint.tokenizer)
    if not replaces:
        options["replacements"] = {}

    def open_session(delay_ms: int) -> Session:
        return Session(
            checkpoint,
            delay_ms=delay_ms,
            kv_bits=arguments.kv_bits,
            # A backlog is decoded several ids at a time.
            speculate=True,
            draft_delay_ms=arguments.draft_delay,
            silence_block=arguments.silence_block,
            confidence=has_confidence,
            **options,
        )

    sessions = tuple(open_session(delay_ms) for _ in range(n_sessions))
    settings = {
        **word_options(arguments),
        "kv_bits": arguments.kv_bits,
        "dtype": checkpoint.dtype,
        "embedding_bits": checkpoint.embedding_bits,
    }
    head = {
        "model": checkpoint.name,
        "delay_ms": delay_ms,
        "settings": settings_key(settings),
    }
    return LocalSessions(checkpoint, sessions, open_session, head)
