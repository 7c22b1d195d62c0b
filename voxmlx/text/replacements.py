"""A user's dictionary, applied to words as they become final."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from voxmlx.errors import HotwordError
from voxmlx.events import Word
from voxmlx.text.lines import read_lines

__all__ = ["Replacements", "read_replacements"]

_OPENING = "\"'“‘«([¿¡„"
_CLOSING = "\"'”’».,;:!?…)]。、！？"


class Replacements:
    """Words of one stream, what the dictionary knows replaced.

    A key is one or several words; case and punctuation around it do not matter, and
    the punctuation stays. The longest key wins. A word is held back only while it
    may still be the beginning of a longer key.
    """

    def __init__(self, replacements: Mapping[str, str]) -> None:
        """Raises HotwordError for a key or a text that is empty."""
        self._texts: dict[tuple[str, ...], str] = {}
        self._prefixes: set[tuple[str, ...]] = set()
        for key, text in replacements.items():
            parts = tuple(map(_plain, key.split()))
            if not parts or "" in parts or not text.strip():
                raise HotwordError(
                    f"replacement {key!r} -> {text!r} has nothing to find or to "
                    "write; give both"
                )
            self._texts[parts] = text
            self._prefixes |= {parts[:n] for n in range(1, len(parts))}
        self._held: list[Word] = []

    @property
    def held(self) -> Sequence[Word]:
        """Return the words that are held back."""
        return self._held

    def push(self, word: Word) -> list[Word]:
        """The next word; the words that are certain now."""
        self._held.append(word)
        return self._certain(is_end=False)

    def flush(self) -> list[Word]:
        """The words held back: nothing more follows, or not soon."""
        return self._certain(is_end=True)

    def _certain(self, *, is_end: bool) -> list[Word]:
        words: list[Word] = []
        while self._held:
            parts = tuple(_plain(word.text) for word in self._held)
            if not is_end and parts in self._prefixes:
                break
            lengths = range(len(parts), 0, -1)
            n = next((n for n in lengths if self._matches(parts, n)), 0)
            if n:
                words += _written(self._held[:n], self._texts[parts[:n]])
            else:
                n = 1
                words.append(self._held[0])
            del self._held[:n]
        return words

    def _matches(self, parts: tuple[str, ...], n: int) -> bool:
        if parts[:n] not in self._texts:
            return False
        # Punctuation inside a phrase, or words written together, make it another.
        inner = self._held[:n]
        return all(
            later.lead != "" and earlier.text[-1] not in _CLOSING
            for earlier, later in pairwise(inner)
        )


def read_replacements(path: Path) -> dict[str, str]:
    """Lines of `heard = written` in a UTF-8 file.

    Raises HotwordError naming the file, and the line that is not of that form.
    """
    replacements: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, "replacements"), 1):
        key, _, text = line.partition("=")
        try:
            Replacements({key.strip(): text.strip()})
        except HotwordError:
            raise HotwordError(
                f"{path}, line {number} is {line!r}, expected: heard = written"
            ) from None
        replacements[key.strip()] = text.strip()
    return replacements


def _plain(text: str) -> str:
    return text.lstrip(_OPENING).rstrip(_CLOSING).casefold()


def _written(heard: list[Word], text: str) -> list[Word]:
    """The replacement's words, sharing the time of what was heard."""
    first, last = heard[0].text, heard[-1].text
    before = first[: len(first) - len(first.lstrip(_OPENING))]
    after = last[len(last.rstrip(_CLOSING)) :]
    parts = f"{before}{text.strip()}{after}".split()
    known = [word.confidence for word in heard if word.confidence is not None]
    start_ms, n = heard[0].start_ms, len(parts)
    span_ms = heard[-1].end_ms - start_ms
    return [
        Word(
            part,
            start_ms + span_ms * i // n,
            start_ms + span_ms * (i + 1) // n,
            min(known) if known else None,
            " " if i else heard[0].lead,
            heard[0].is_echo,
        )
        for i, part in enumerate(parts)
    ]
