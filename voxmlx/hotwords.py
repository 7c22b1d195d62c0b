"""Phrases a user expects: which ids to favour, and whether one has been said."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.errors import HotwordError, TokenizerError
from voxmlx.tokenizer import Tokenizer

__all__ = ["BOOST", "HotwordMatch", "HotwordTrie", "read_hotwords", "read_lines"]

# Logits added to an id that goes on with a hot word. With a checkpoint of 16 % WER
# and six words it misheard, 1.0 raised their recall from 1 to 2 of 7, 2.0 to 4, 4.0 to
# 7; WER became 15.7, 14.2 and 17.2 %, the last by writing them where nobody said them.
BOOST = 2.0
# One hot word may be helped by so many boosts in all.
_MAX_BOOSTS = 3

_MAX_PHRASE_TOKENS = 32
# Blanks between two words of a phrase: a pause of 2 s ends it.
_MAX_BLANKS = 25


@dataclass(slots=True)
class _Node:
    """Where the ids of a phrase have led so far."""

    children: dict[int, "_Node"] = field(default_factory=dict[int, "_Node"])
    is_end: bool = False


class HotwordTrie:
    """All phrases as ids, those that begin alike sharing their first.

    Phrases are matched from the start of a word on, as they are written. `boost`
    is in logits and `max_help` bounds what one phrase gets in all (None: 3 boosts).
    Raises HotwordError for a phrase that is empty, too long or has no ids.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        phrases: Iterable[str],
        *,
        boost: float = BOOST,
        max_help: float | None = None,
    ) -> None:
        self.boost = boost
        self.max_help = _MAX_BOOSTS * boost if max_help is None else max_help
        self.root = _Node()
        self._spaced: set[int] = set()
        for phrase in phrases:
            self._insert(tokenizer, phrase)

    def __bool__(self) -> bool:
        return bool(self.root.children)

    def begins_word(self, token_id: int) -> bool:
        """Whether an id of a phrase begins with a space."""
        return token_id in self._spaced

    def _insert(self, tokenizer: Tokenizer, phrase: str) -> None:
        text = _clean(phrase)
        # A model may leave out the space before the first word of a stream.
        for spelling in (f" {text}", text):
            try:
                ids = tokenizer.encode(spelling)
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
                if tokenizer.piece(token_id).startswith(b" "):
                    self._spaced.add(token_id)
            node.is_end = True


class HotwordMatch:
    """How far one stream is within a hot word; an id at a time."""

    def __init__(self, trie: HotwordTrie) -> None:
        self._trie = trie
        self._node = trie.root
        self._last_id = STREAMING_WORD_ID
        self._help = 0.0
        self._n_blank = 0
        self.is_complete = False
        self.is_broken = False

    def copy(self) -> "HotwordMatch":
        """An independent match that goes on from here; the trie is shared."""
        twin = HotwordMatch(self._trie)
        twin._node, twin._last_id = self._node, self._last_id
        twin._help, twin._n_blank = self._help, self._n_blank
        twin.is_complete, twin.is_broken = self.is_complete, self.is_broken
        return twin

    def boost(self) -> dict[int, float]:
        """What to add to which logit of the next id."""
        amount = min(self._trie.boost, self._trie.max_help - self._help)
        if amount <= 0:
            return {}
        return {i: amount for i in self._node.children if self._may_follow(i)}

    def accept(self, token_id: int, help_given: float) -> None:
        """The id chosen, ahead of what it would have been by `help_given` logits."""
        self.is_complete = self.is_broken = False
        self._help += help_given
        child = self._node.children.get(token_id)
        if child is not None and self._may_follow(token_id):
            self._advance(child)
        elif token_id in (STREAMING_PAD_ID, STREAMING_WORD_ID):
            self._wait()
        else:
            self._break()
            child = self._trie.root.children.get(token_id)
            if child is not None and self._may_follow(token_id):
                self._advance(child)
        self._last_id = token_id

    def _may_follow(self, token_id: int) -> bool:
        """Whether a child may come straight after the last id.

        A word begins after a marker, or with a space after text; what is left of a
        word comes right after its beginning.
        """
        is_first = self._node is self._trie.root
        begins = self._trie.begins_word(token_id)
        if self._last_id == STREAMING_PAD_ID:
            return False
        if self._last_id == STREAMING_WORD_ID:
            return begins or is_first
        return begins or not is_first

    def _advance(self, child: _Node) -> None:
        self._n_blank = 0
        self._node = child
        self.is_complete = child.is_end
        if child.is_end:
            self._help = 0.0
            if not child.children:
                self._node = self._trie.root

    def _wait(self) -> None:
        """A blank or a marker: only between two words of a phrase."""
        if self._node is self._trie.root:
            return
        self._n_blank += 1
        between = any(map(self._trie.begins_word, self._node.children))
        if not between or self._n_blank > _MAX_BLANKS:
            self._break()

    def _break(self) -> None:
        self.is_broken = self._node is not self._trie.root
        self._node = self._trie.root
        self._help = 0.0
        self._n_blank = 0


def read_hotwords(path: Path, tokenizer: Tokenizer | None = None) -> list[str]:
    """One phrase per line of a UTF-8 file.

    Raises HotwordError naming the file, and the line that is empty or that the
    tokenizer, if there is one yet, cannot write.
    """
    phrases = read_lines(path, "hot words")
    for number, phrase in enumerate(phrases, 1):
        try:
            if tokenizer is None:
                _clean(phrase)
            else:
                HotwordTrie(tokenizer, [phrase])
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


def read_lines(path: Path, content: str) -> list[str]:
    """The lines of a UTF-8 file of `content`. Raises HotwordError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise HotwordError(
            f"{path} does not exist; give a file of {content}, one per line"
        ) from None
    except UnicodeDecodeError as error:
        raise HotwordError(
            f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise HotwordError(f"{path} cannot be read: {error.strerror}") from None
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines
