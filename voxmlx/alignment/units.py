"""A text -> units to align: its words, or the tokens of languages without spaces."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from voxmlx.errors import TextError, TokenizerError
from voxmlx.text.tokenizer import Tokenizer
from voxmlx.text.words import pieces_of

__all__ = ["TextUnit", "text_units"]


@dataclass(frozen=True, slots=True)
class TextUnit:
    """A part of a text that is aligned as one: `text` has no white space.

    `spellings` are the ids by which a model may write it.
    `lead` is " " or "", as before a Word. `is_spaced` tells a word from a token of a
    language without spaces.
    """

    text: str
    lead: str
    spellings: tuple[tuple[int, ...], ...]
    is_spaced: bool


def text_units(text: str, tokenizer: Tokenizer) -> list[TextUnit]:
    """Return the units of a text in order.

    A word may be written with or without its punctuation and capitals. Raises TextError
    for a text without words, and for a word that the model's vocabulary cannot spell.
    """
    units: list[TextUnit] = []
    try:
        for word in text.split():
            if len(pieces_of(word)) > 1:
                units += _tokens(word, tokenizer)
            else:
                units.append(TextUnit(word, " ", _spellings(word, tokenizer), True))
    except TokenizerError as error:
        raise TextError(
            f"the text has a word that cannot be aligned: {error}"
        ) from None
    if not units:
        raise TextError("the text is empty, expected what is said in the sound")
    return units


def _spellings(word: str, tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    bare = word
    while bare and not _is_spoken(bare[0]):
        bare = bare[1:]
    while bare and not _is_spoken(bare[-1]):
        bare = bare[:-1]
    bare = bare or word
    title = bare[0].upper() + bare[1:]
    found: dict[tuple[int, ...], None] = {}
    refused: TokenizerError | None = None
    for variant in dict.fromkeys((word, bare, bare.lower(), title)):
        try:
            found[tuple(tokenizer.encode(f" {variant}"))] = None
        except TokenizerError as error:
            refused = refused or error
    if not found and refused is not None:
        raise refused
    return tuple(found)


def _is_spoken(char: str) -> bool:
    return unicodedata.category(char)[0] in "LNM"


def _tokens(chunk: str, tokenizer: Tokenizer) -> Iterator[TextUnit]:
    """Cut where tokens end, if whole characters do."""
    ids: list[int] = []
    written = b""
    lead = " "
    for token_id in tokenizer.encode(chunk):
        ids.append(token_id)
        written += tokenizer.piece(token_id)
        try:
            text = written.decode()
        except UnicodeDecodeError:
            continue
        yield TextUnit(text, lead, (tuple(ids),), False)
        ids, written, lead = [], b"", ""
