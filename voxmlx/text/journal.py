"""The ids in a jsonl file of ours, wherever it was cut."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxmlx.config import AUDIO_TOKEN_MS
from voxmlx.errors import OutputError
from voxmlx.events import Alternative, TokenDecoded

__all__ = ["Journal", "read_journal", "settings_key"]

# What a line raises that is not ours, or was cut, whatever stands in it.
_WRONG = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Journal:
    """The readable part of a file: its first line, and ids from the first one on."""

    head: Mapping[str, Any]
    tokens: list[TokenDecoded]


def read_journal(path: Path) -> Journal:
    """Read a file that JsonLinesWriter wrote, up to where it is cut or damaged.

    A file that is missing or holds nothing whole is an empty journal. Raises
    OutputError for a file that cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # a line without an end is cut
    except FileNotFoundError:
        lines = []
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}") from None
    head: Mapping[str, Any] = {}
    tokens: list[TokenDecoded] = []
    for i, line in enumerate(lines):
        try:
            fields = json.loads(line)
            if i == 0:
                head = fields if fields["type"] == "stream" else {}
            elif fields["type"] == "tokens":
                tokens += _tokens(fields, len(tokens))
            elif fields["type"] == "token":
                tokens.append(_token(fields, len(tokens)))
        except _WRONG:
            break
    return Journal(head, tokens)


def settings_key(settings: Mapping[str, Any]) -> str:
    """Return 12 hexadecimal digits that differ where the settings do."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _tokens(fields: dict[str, Any], n_before: int) -> list[TokenDecoded]:
    ids: list[int] = fields["token_ids"]
    logprobs: list[float | None] = fields.get("logprobs") or [None] * len(ids)
    guards: dict[str, str] = fields.get("guards") or {}
    recovered: dict[str, str] = fields.get("recovered") or {}
    if fields["index"] != n_before or len(ids) != len(logprobs):
        raise ValueError(fields["index"])
    return [
        TokenDecoded(
            int(token_id),
            index := n_before + i,
            (index + 1) * AUDIO_TOKEN_MS,
            None if logprob is None else _float32(logprob),
            guard=guards.get(str(index)),
            recovered=recovered.get(str(index)),
        )
        for i, (token_id, logprob) in enumerate(zip(ids, logprobs, strict=True))
    ]


def _token(fields: dict[str, Any], n_before: int) -> TokenDecoded:
    if fields["index"] != n_before:
        raise ValueError(fields["index"])
    logprob = fields.get("logprob")
    return TokenDecoded(
        int(fields["token_id"]),
        n_before,
        int(fields["time_ms"]),
        None if logprob is None else _float32(logprob),
        tuple(
            Alternative(int(one["token_id"]), str(one["text"]), float(one["logprob"]))
            for one in fields.get("alternatives", ())
        ),
        fields.get("guard"),
        fields.get("recovered"),
    )


def _float32(number: float) -> float:
    """The number that was printed with nine digits, to its last bit."""
    return float(np.float32(number))
