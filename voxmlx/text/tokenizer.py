"""Tekken token ids -> bytes -> text that never changes once emitted."""

import base64
import binascii
import codecs
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from voxmlx.config import (
    BOS_ID,
    DEFAULT_DELAY_MS,
    EOS_ID,
    LEFT_PAD_TOKENS,
    LEGAL_DELAYS_MS,
    STREAMING_PAD_ID,
    STREAMING_WORD_ID,
)
from voxmlx.errors import TokenizerError

if TYPE_CHECKING:
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

__all__ = ["TextStream", "Tokenizer"]

# Ids the decoding loop is built on; a tekken.json that disagrees is another model's.
REQUIRED_SPECIAL_IDS = {
    "<s>": BOS_ID,
    "</s>": EOS_ID,
    "[STREAMING_PAD]": STREAMING_PAD_ID,
    "[STREAMING_WORD]": STREAMING_WORD_ID,
}

# Cuts nothing.
_WHOLE_TEXT = r"(?s).+"


class Tokenizer:
    """The vocabulary of a `tekken.json`: control ids first, then byte strings."""

    def __init__(
        self,
        n_special: int,
        pieces: list[bytes],
        pattern: str | None = None,
        *,
        delay_ms: int = DEFAULT_DELAY_MS,
        left_pad_tokens: int = LEFT_PAD_TOKENS,
    ) -> None:
        """`pattern` cuts text before it is encoded, in tiktoken's language.

        `delay_ms` and `left_pad_tokens` are what the file says about streams.
        """
        self.n_special = n_special
        self.delay_ms = delay_ms
        self.left_pad_tokens = left_pad_tokens
        self._pieces = pieces
        self._pattern = pattern
        self._tekkenizer: Tekkenizer | None = None  # made by the first `encode`

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
        except OSError as error:
            raise TokenizerError(
                f"{path} cannot be read: {error.strerror}; check its permissions"
            ) from None
        except (ValueError, RecursionError) as error:
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
        audio: dict[str, Any] = content.get("audio") or {}
        if not isinstance(audio, dict):  # pyright: ignore[reportUnnecessaryIsInstance] -- of a file
            raise TokenizerError(f"{path}: audio is {audio!r}, expected an object")
        return cls(
            n_special,
            pieces,
            config["pattern"],
            delay_ms=_delay_ms(path, audio),
            left_pad_tokens=_left_pad_tokens(path, audio),
        )

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
        """Return the ids a model was taught to write `text` with, no control ids.

        Raises TokenizerError for text that the vocabulary cannot spell.
        """
        try:
            text.encode()  # the Tekkenizer writes half a surrogate pair as U+FFFD
            if self._tekkenizer is None:
                self._tekkenizer = self._made_tekkenizer()
            return self._tekkenizer.encode(text, bos=False, eos=False)
        except (UnicodeEncodeError, AssertionError, ValueError):
            raise TokenizerError(
                f"{text!r} cannot be written in the model's vocabulary"
            ) from None

    def _made_tekkenizer(self) -> "Tekkenizer":
        """Return mistral-common's encoder of this vocabulary.

        Raises AssertionError or ValueError for a vocabulary that it refuses.
        """
        # A local import: it takes a second, and only hot words are ever encoded.
        from mistral_common.tokens.tokenizers.base import TokenizerVersion
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer, TokenInfo

        vocab = [
            TokenInfo(
                rank=rank, token_bytes=base64.b64encode(piece).decode(), token_str=None
            )
            for rank, piece in enumerate(self._pieces)
        ]
        return Tekkenizer(
            vocab,
            [],
            self._pattern or _WHOLE_TEXT,
            self.vocab_size,
            self.n_special,
            TokenizerVersion.v7,  # all versions encode text alike
        )

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of a whole sequence; bytes that are no UTF-8 become U+FFFD."""
        stream = TextStream(self)
        return "".join([*map(stream.push, token_ids), stream.flush()])


def _delay_ms(path: Path, audio: Mapping[str, Any]) -> int:
    """The delay a model is meant for; the model card says to edit it there."""
    value = audio.get("transcription_delay_ms")
    if value is None:
        return DEFAULT_DELAY_MS
    if isinstance(value, bool) or value not in LEGAL_DELAYS_MS:
        legal = ", ".join(map(str, LEGAL_DELAYS_MS))
        raise TokenizerError(
            f"{path}: transcription_delay_ms is {value!r}, expected one of {legal}"
        )
    return int(value)


def _left_pad_tokens(path: Path, audio: Mapping[str, Any]) -> int:
    """The audio tokens of silence before a stream."""
    value = audio.get("streaming_n_left_pad_tokens")
    if value is None:
        return LEFT_PAD_TOKENS
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TokenizerError(
            f"{path}: streaming_n_left_pad_tokens is {value!r}, expected a positive "
            "integer"
        )
    return value


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
        """Return the text that this id completes, possibly none."""
        return self._begun(self._decoder.decode(self._tokenizer.piece(token_id)))

    def flush(self) -> str:
        """U+FFFD if a character was left unfinished, else nothing."""
        return self._begun(self._decoder.decode(b"", final=True))

    def _begun(self, text: str) -> str:
        if not self._has_started:
            text = text.lstrip(" ")
            self._has_started = bool(text)
        return text
