"""Tekken token ids -> bytes -> text that never changes once emitted."""

import base64
import binascii
import codecs
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from voxmlx.config import BOS_ID, EOS_ID, STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.errors import TokenizerError

__all__ = ["TextStream", "Tokenizer"]

# Ids the decoding loop is built on; a tekken.json that disagrees is another model's.
REQUIRED_SPECIAL_IDS = {
    "<s>": BOS_ID,
    "</s>": EOS_ID,
    "[STREAMING_PAD]": STREAMING_PAD_ID,
    "[STREAMING_WORD]": STREAMING_WORD_ID,
}

_NO_RANK = 1 << 40


class Tokenizer:
    """The vocabulary of a `tekken.json`: control ids first, then byte strings."""

    def __init__(
        self, n_special: int, pieces: list[bytes], pattern: str | None = None
    ) -> None:
        """`pattern` cuts text before it is encoded, in the language of `regex`."""
        self.n_special = n_special
        self._pieces = pieces
        self._pattern = pattern
        self._ranks: dict[bytes, int] | None = None  # made by the first `encode`

    @property
    def vocab_size(self) -> int:
        return self.n_special + len(self._pieces)

    @classmethod
    def from_file(cls, path: Path, vocab_size: int) -> "Tokenizer":
        """Read `tekken.json`, which must have `vocab_size` ids.

        Raises TokenizerError naming what is wrong with it.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise TokenizerError(
                f"{path} is missing; a model directory needs its tekken.json"
            ) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise TokenizerError(f"{path} is not readable JSON: {error}") from None
        try:
            return cls._from_content(path, content, vocab_size)
        except (KeyError, TypeError, IndexError, binascii.Error) as error:
            raise TokenizerError(
                f"{path} is no tekken tokenizer: {type(error).__name__} at {error}"
            ) from None

    @classmethod
    def _from_content(cls, path: Path, content: Any, vocab_size: int) -> "Tokenizer":
        config: dict[str, Any] = content["config"]
        n_ids: int = config["default_vocab_size"]
        n_special: int = config["default_num_special_tokens"]
        if n_ids != vocab_size:
            raise TokenizerError(
                f"{path} has {n_ids} ids, the model has {vocab_size}; "
                "take the tekken.json that came with the model"
            )
        specials: list[dict[str, Any]] = content["special_tokens"]
        ids = {special["token_str"]: special["rank"] for special in specials}
        for token, expected in REQUIRED_SPECIAL_IDS.items():
            if ids.get(token) != expected:
                raise TokenizerError(
                    f"{path}: {token} has id {ids.get(token)}, expected {expected}"
                )
        # The file lists more entries than the model uses, in order of rank.
        vocab = cast("list[dict[str, Any]]", content["vocab"])
        used = vocab[: n_ids - n_special]
        if len(used) < n_ids - n_special:
            raise TokenizerError(
                f"{path} lists {len(used)} text tokens, expected {n_ids - n_special}"
            )
        for rank, entry in enumerate(used):
            if entry["rank"] != rank:
                raise TokenizerError(f"{path}: rank {entry['rank']} at place {rank}")
        pieces = [base64.b64decode(entry["token_bytes"]) for entry in used]
        return cls(n_special, pieces, config["pattern"])

    def piece(self, token_id: int) -> bytes:
        """The bytes of an id, possibly part of a character; b"" for control ids."""
        if not 0 <= token_id < self.vocab_size:
            raise IndexError(f"token id {token_id} is outside 0..{self.vocab_size - 1}")
        return (
            b""
            if token_id < self.n_special
            else self._pieces[token_id - self.n_special]
        )

    def encode(self, text: str) -> list[int]:
        """The ids a model was taught to write `text` with; never control ids.

        Raises TokenizerError for text that the vocabulary cannot spell.
        """
        # A local import: only hot words are ever encoded.
        import regex

        if self._ranks is None:
            self._ranks = {piece: rank for rank, piece in enumerate(self._pieces)}
        parts = [text] if self._pattern is None else regex.findall(self._pattern, text)
        try:
            spelt = [piece for part in parts for piece in self._merged(part.encode())]
            return [self.n_special + self._ranks[piece] for piece in spelt]
        except (KeyError, UnicodeEncodeError):
            raise TokenizerError(
                f"{text!r} cannot be written in the model's vocabulary"
            ) from None

    def _merged(self, content: bytes) -> list[bytes]:
        """Bytes merged pair by pair, the pair of the lowest rank first."""
        ranks = self._ranks or {}
        if content in ranks:  # even where no chain of merges leads to it
            return [content]
        pieces = [content[i : i + 1] for i in range(len(content))]
        while len(pieces) > 1:
            pairs = [a + b for a, b in itertools.pairwise(pieces)]
            best = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], _NO_RANK))
            if pairs[best] not in ranks:
                break
            pieces[best : best + 2] = [pairs[best]]
        return pieces

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of a whole sequence; bytes that are no UTF-8 become U+FFFD."""
        stream = TextStream(self)
        return "".join([*map(stream.push, token_ids), stream.flush()])


class TextStream:
    """Text of one token at a time: whole characters only, final once returned.

    Spaces before the first word belong to the tokens, not to the text, and are
    left out. A stream that ends inside a character ends with one U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._has_started = False

    def push(self, token_id: int) -> str:
        """What this id completes, possibly nothing."""
        return self._begun(self._decoder.decode(self._tokenizer.piece(token_id)))

    def flush(self) -> str:
        """U+FFFD if a character was left unfinished, else nothing."""
        return self._begun(self._decoder.decode(b"", final=True))

    def _begun(self, text: str) -> str:
        if not self._has_started:
            text = text.lstrip(" ")
            self._has_started = bool(text)
        return text
