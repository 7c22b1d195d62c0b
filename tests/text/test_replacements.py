"""A user's dictionary changes the words it knows, and no others."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given

from tests.spoken import spoken, word_lists
from voxmlx.errors import HotwordError
from voxmlx.events import Word
from voxmlx.text.replacements import Replacements, read_replacements
from voxmlx.text.transcript import text_of

NAMES = {"vox trawl": "Voxtral", "vox": "Vox", "em el ex": "MLX", "gonna": "going to"}


def replaced(text: str, replacements: Mapping[str, str] = NAMES) -> str:
    known = Replacements(replacements)
    words = [word for heard in spoken(text) for word in known.push(heard)]
    return text_of([*words, *known.flush()])


@pytest.mark.parametrize(
    ("heard", "written"),
    [
        ("the vox trawl model", "the Voxtral model"),
        ("Vox Trawl, on em el ex.", "Voxtral, on MLX."),
        ("“Vox” is gonna trawl", "“Vox” is going to trawl"),
        ("vox, trawl", "Vox, trawl"),
        ("vox em el", "Vox em el"),
        ("voxtrawl", "voxtrawl"),
        ("vox vox trawl", "Vox Voxtral"),
    ],
)
def test_what_the_dictionary_knows_is_replaced(heard: str, written: str) -> None:
    assert replaced(heard) == written


@given(word_lists())
def test_other_words_pass_unchanged_and_in_order(words: list[Word]) -> None:
    known = Replacements({"the 42 of": "x", "nobody": "y"})
    passed = [certain for word in words for certain in known.push(word)]
    assert passed + known.flush() == words


def test_a_word_is_held_back_only_while_a_longer_key_may_come() -> None:
    known = Replacements(NAMES)
    the, em, el, on = spoken("the em el on")
    assert known.push(the) == [the]
    assert known.push(em) == known.push(el) == []
    assert known.push(on) == [em, el, on]


def test_a_replacement_has_the_time_of_what_was_heard_and_its_least_confidence() -> (
    None
):
    known = Replacements({"a b": "one two three"})
    heard = [Word("a", 300, 600, 0.9, "\n"), Word("b", 600, 1200, 0.4)]
    words = [certain for word in heard for certain in known.push(word)]
    assert words == [
        Word("one", 300, 600, 0.4, "\n"),
        Word("two", 600, 900, 0.4),
        Word("three", 900, 1200, 0.4),
    ]


@pytest.mark.parametrize("bad", [{"": "x"}, {"x": " "}, {"...": "dots"}])
def test_an_empty_replacement_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(HotwordError, match="nothing to find or to write"):
        Replacements(bad)


def test_a_file_is_a_line_for_each(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("vox trawl = Voxtral\na=b=c\n", encoding="utf-8")
    assert read_replacements(path) == {"vox trawl": "Voxtral", "a": "b=c"}


@pytest.mark.parametrize("content", ["a", "a =", "= b", "a = b\n\n", "... = b"])
def test_a_line_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "names.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(HotwordError, match=r"names\.txt, line \d is"):
        read_replacements(path)


def test_the_words_of_a_replacement_share_whole_milliseconds() -> None:
    replacements = Replacements({"abc": "a b c"})
    written = replacements.push(Word("“abc", 0, 100, None, ""))
    assert [(w.text, w.start_ms, w.end_ms) for w in written] == [
        ("“a", 0, 33),
        ("b", 33, 66),
        ("c", 66, 100),
    ]


def test_words_held_for_a_longer_key_all_come_out() -> None:
    replacements = Replacements({"a b c": "x", "a": "1", "b": "2"})
    assert replacements.push(Word("a", 0, 10, None, "")) == []
    assert replacements.push(Word("b", 10, 20, None, " ")) == []
    assert [word.text for word in replacements.flush()] == ["1", "2"]


def test_a_bad_line_of_a_file_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    with pytest.raises(HotwordError, match="give a file of replacements, one per line"):
        read_replacements(path)
    path.write_text("a = b\nc\n", encoding="utf-8")
    with pytest.raises(HotwordError, match="line 2 is 'c', expected: heard = written"):
        read_replacements(path)
