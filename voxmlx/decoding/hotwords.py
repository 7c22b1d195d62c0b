"""Phrases a user expects: which ids to favour, and whether one has been said.

A phrase is a path of ids in a trie. `HotwordMatch` follows one stream's ids through it.
It favours what may come next, and says where a phrase is complete or broken. What
becomes of the ids is a trial's business (`trial.py`).

States of a match:

    idle      at the root: no phrase has begun
    begun     the first ids of a phrase have come
    written   so has its last id; the next one shows whether its last word is over

Transitions, by the next id:

    from      id                                               to
    idle      the first of a phrase, where a word begins       begun, or written
    begun     the next of the phrase                           begun, or written
    begun     PAD or WORD between two words, 25 times at most  begun
    begun     any other                                        idle, broken
    written   one that begins a new word, PAD or WORD          complete: idle, or begun
                                                               where a phrase goes on
    written   one that goes on with the last word              begun, where a phrase does;
                                                               else idle, broken

Invariants: an id is favoured only where a word may begin (after WORD, or by its space), or
where it goes on with one; one word gets `boost` logits in all; a match holds one place of
the trie, whatever the stream's length.

Example, "Voxtral Mini" with a boost of 2.0, as ids " vox", "tral", " mini": after a WORD
" vox" gets 2.0 and is chosen, 1.5 ahead of what it had. So 1.5 are spent, and "tral" gets
0.5. PAD, PAD and WORD may come between two words. Then " mini" gets 2.0 again: it is
another word. It is written, and the PAD after it makes the phrase complete.
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.errors import HotwordError, TokenizerError
from voxmlx.text.lines import read_lines
from voxmlx.text.tokenizer import Tokenizer
from voxmlx.text.words import pieces_of

__all__ = ["BOOST", "HotwordMatch", "HotwordTrie", "read_hotword_trie", "read_hotwords"]

# Logits by which one word may be helped, all its ids together: the most that lost no word
# in 300 sentences of the demo's domain, with lists of five words of four letters or more.
# It brought back 23 of 70; at 1.0 it was 14, at 3.0 31 for two others lost.
BOOST = 2.0

_MAX_PHRASE_TOKENS = 32
# Blanks between two words of a phrase: a pause of 2 s ends it.
_MAX_PADS = 25
# What has begun in so many last ids may be written later with a hot word than without.
_LATE_TOKENS = 2
# Two words that are one hot word have at most so many times its letters.
_MAX_SWALLOWED = 1.15


@dataclass(slots=True)
class _Node:
    """Where the ids of a phrase have led so far."""

    children: dict[int, "_Node"] = field(default_factory=dict[int, "_Node"])
    # Last character of the phrase that is written here, if one is.
    ending: str = ""


class HotwordTrie:
    """A trie of phrases as ids; phrases that begin alike share their first ids.

    Phrases are matched from the start of a word on, with or without a capital. Raises
    HotwordError for a phrase that is empty, too long or has no ids.
    """

    def __init__(
        self, tokenizer: Tokenizer, phrases: Iterable[str], *, boost: float = BOOST
    ) -> None:
        """`boost` is in logits, and all that one word of a phrase gets."""
        self.boost = boost
        self.root = _Node()
        self._tokenizer = tokenizer
        self._spaced: set[int] = set()
        for phrase in phrases:
            self.add(phrase)

    def __bool__(self) -> bool:
        return bool(self.root.children)

    def begins_word(self, token_id: int) -> bool:
        """Return whether an id of a phrase begins with a space."""
        return token_id in self._spaced

    def ends_word(self, ending: str, token_id: int) -> bool:
        """Return whether a word that ends in `ending` is over when `token_id` follows."""
        begins = self._tokenizer.piece(token_id).decode("utf-8", "replace")[:1]
        if not begins or len(pieces_of(ending + begins)) > 1:
            return True
        is_letter = begins.isalnum() or unicodedata.category(begins)[0] == "M"
        # Bytes that are no character yet may become a letter.
        return not is_letter and begins != "\ufffd"

    def keeps_rest(
        self,
        unboosted: Sequence[int],
        boosted: Sequence[int],
        n_phrase: int,
        *,
        is_inside: bool,
    ) -> bool:
        """Return whether ids without and with a hot word, `boosted[:n_phrase]`, differ by it alone.

        They are of the same positions; `is_inside` says that a word is going on at
        the first. A name may have been heard as a word more, or less, than it has, if
        about as long.
        """
        said = self._words(unboosted, is_inside)
        written = self._words(boosted, is_inside)
        n = sum(start < n_phrase for _, start in written)
        late = len(boosted) - _LATE_TOKENS
        longest = _MAX_SWALLOWED * _n_chars(written[:n])
        return any(
            _agree(said[replaced:], written[n:], late)
            for replaced in (n, n + 1, n - 1)
            if 1 <= replaced <= len(said)
            and (replaced <= n or _n_chars(said[:replaced]) <= longest)
        )

    def _words(self, ids: Sequence[int], is_inside: bool) -> list[tuple[str, int]]:
        """Words, or characters of languages without spaces, and where they begin."""
        spelt = [(b"", 0)] if is_inside else []
        for i, token_id in enumerate(ids):
            piece = self._tokenizer.piece(token_id)
            if spelt and not piece.startswith(b" ") and ids[i - 1] != STREAMING_WORD_ID:
                spelt[-1] = (spelt[-1][0] + piece, spelt[-1][1])
            elif piece:
                spelt.append((piece, i))
        return [
            (text, start)
            for piece, start in spelt
            for text in pieces_of(piece.decode("utf-8", "replace").strip()) or [""]
        ]

    def add(self, phrase: str) -> None:
        """Take another phrase, before any stream follows the trie."""
        text = _clean(phrase)
        for spelling in _spellings(text):
            try:
                ids = self._tokenizer.encode(spelling)
            except TokenizerError as error:
                raise HotwordError(f"hot word {error}") from None
            if len(ids) > _MAX_PHRASE_TOKENS:
                raise HotwordError(
                    f"hot word {text!r} takes {len(ids)} tokens, at most "
                    f"{_MAX_PHRASE_TOKENS} are possible; shorten it"
                )
            node = self.root
            for token_id in ids:
                node = node.children.setdefault(token_id, _Node())
                if self._tokenizer.piece(token_id).startswith(b" "):
                    self._spaced.add(token_id)
            node.ending = text[-1]


class HotwordMatch:
    """The place of one stream within the hot words, advanced by one id at a time."""

    def __init__(self, trie: HotwordTrie) -> None:
        self.trie = trie
        self._node = trie.root
        self._last_id = STREAMING_WORD_ID
        self._help = 0.0
        self._n_pad = 0
        self._is_written = False  # by the last id
        self.is_complete = False
        self.is_broken = False

    @property
    def is_idle(self) -> bool:
        """Return whether no hot word has begun, and none waits for the id after it."""
        return self._node is self.trie.root and not self._is_written

    @property
    def is_inside_word(self) -> bool:
        """Return whether the last id was text."""
        return self._last_id not in (STREAMING_PAD_ID, STREAMING_WORD_ID)

    def copy(self) -> "HotwordMatch":
        """An independent match that goes on from here; the trie is shared."""
        twin = HotwordMatch(self.trie)
        twin._node, twin._last_id = self._node, self._last_id
        twin._help, twin._n_pad = self._help, self._n_pad
        twin._is_written = self._is_written
        twin.is_complete, twin.is_broken = self.is_complete, self.is_broken
        return twin

    def boost(self) -> dict[int, float]:
        """Return the amount to add to each logit of the next id."""
        if self._last_id == STREAMING_PAD_ID:
            return {}  # at most ids, so that long lists cost little
        left = self.trie.boost - self._help
        amounts = {
            token_id: left if self._is_within_word(token_id) else self.trie.boost
            for token_id in self._node.children
            if self._may_follow(token_id)
        }
        return {token_id: amount for token_id, amount in amounts.items() if amount > 0}

    def observe(self, token_id: int, help_given: float) -> None:
        """The id chosen, ahead of what it would have been by `help_given` logits.

        A phrase is complete only with the id after it, which must not go on with its
        last word.
        """
        self.is_complete = self.is_broken = False
        is_written, self._is_written = self._is_written, False
        goes_on = self._child(token_id) and self._is_within_word(token_id)
        if is_written and not goes_on:
            self.is_complete = self.trie.ends_word(self._node.ending, token_id)
            if not self.is_complete or not self._node.children:
                self._break()
        child = self._child(token_id)
        if child is None and token_id not in (STREAMING_PAD_ID, STREAMING_WORD_ID):
            self._break()
            child = self._child(token_id)
        if child is None:
            self._wait()
        else:
            is_within = self._is_within_word(token_id)
            self._help = help_given + (self._help if is_within else 0.0)
            self._n_pad = 0
            self._node = child
            self._is_written = bool(child.ending)
        self._last_id = token_id

    def _child(self, token_id: int) -> _Node | None:
        """Where the id leads, if it may come straight after the last one."""
        return self._node.children.get(token_id) if self._may_follow(token_id) else None

    def _is_within_word(self, token_id: int) -> bool:
        """Whether a child goes on with a word that has been begun."""
        return self._node is not self.trie.root and not self.trie.begins_word(token_id)

    def _may_follow(self, token_id: int) -> bool:
        """Whether a child may come straight after the last id.

        A word begins after a marker, or with a space after text; what is left of a
        word comes right after its beginning.
        """
        is_first = self._node is self.trie.root
        begins = self.trie.begins_word(token_id)
        if self._last_id == STREAMING_PAD_ID:
            return False
        if self._last_id == STREAMING_WORD_ID:
            return begins or is_first
        return begins or not is_first

    def _wait(self) -> None:
        """A blank or a marker: only between two words of a phrase."""
        if self._node is self.trie.root:
            return
        self._n_pad += 1
        between = any(map(self.trie.begins_word, self._node.children))
        if not between or self._n_pad > _MAX_PADS:
            self._break()

    def _break(self) -> None:
        if self._node is not self.trie.root:
            self.is_broken = not self.is_complete
        self._node = self.trie.root
        self._help = 0.0
        self._n_pad = 0


def _spellings(text: str) -> list[str]:
    """How a model may write a phrase: its first letter large where a sentence begins,
    and without a space before the first word of a stream.
    """
    first = text.split()[0]
    heads = [text[0], text[0].upper()]
    if first[1:] == first[1:].lower():
        heads.append(text[0].lower())
    # Some letters have no other form of one character.
    spelt = dict.fromkeys(head + text[1:] for head in heads if len(head) == 1)
    return [before + spelling for spelling in spelt for before in (" ", "")]


def _n_chars(words: Sequence[tuple[str, int]]) -> int:
    return sum(len(text) for text, _ in words)


def _agree(
    a: Sequence[tuple[str, int]], b: Sequence[tuple[str, int]], late: int
) -> bool:
    """Whether words and their starts are the same, as far as they must be written."""
    n = min(len(a), len(b))
    return all(
        x == y or max(i, j) >= late for (x, i), (y, j) in zip(a[:n], b[:n], strict=True)
    ) and all(start >= late for _, start in (*a[n:], *b[n:]))


def read_hotwords(path: Path) -> list[str]:
    """One phrase per line of a UTF-8 file.

    Raises HotwordError naming the file, and the line that is empty.
    """
    return _read(path, _clean)


def read_hotword_trie(
    path: Path, tokenizer: Tokenizer, *, boost: float = BOOST
) -> HotwordTrie:
    """The trie of such a file's phrases, which any number of streams may follow.

    Raises HotwordError as read_hotwords, and for a line that the tokenizer cannot write.
    """
    trie = HotwordTrie(tokenizer, (), boost=boost)
    _read(path, trie.add)
    return trie


def _read(path: Path, take: Callable[[str], object]) -> list[str]:
    """The lines of a file, each taken. Raises HotwordError naming one that is refused."""
    phrases = read_lines(path, "hot words")
    for number, phrase in enumerate(phrases, 1):
        try:
            take(phrase)
        except HotwordError as error:
            raise HotwordError(f"{path}, line {number}: {error}") from None
    return phrases


def _clean(phrase: str) -> str:
    """The phrase in single spaces. Raises HotwordError if nobody can say it."""
    text = " ".join(phrase.split())
    if not text:
        raise HotwordError("a hot word is empty; give every one a text")
    if not text.isprintable():
        raise HotwordError(
            f"hot word {text!r} has characters that nobody can say; remove them"
        )
    return text
