"""Lines end where a reader expects it, in any language."""

import pytest

from voxmlx.text.line_breaks import (
    Break,
    best_break,
    columns,
    ends_clause,
    ends_sentence,
    is_joined,
    last_sign,
    may_break,
    printable,
)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (" ", "a", True),
        (" ", " ", False),
        (" ", "!", False),
        ("a", "b", False),
        ("日", "本", True),
        ("日", "a", True),
        ("a", "日", True),
        ("き", "ょ", False),
        ("」", "。", False),
        ("「", "日", False),
        ("日", "」", False),
        ("👩", "\u200d", False),
        ("\u200d", "👩", False),
        ("か", "\u3099", False),
        ("ก", "ข", True),
    ],
)
def test_a_line_ends_between_two_characters_only_where_it_may(
    before: str, after: str, expected: bool
) -> None:
    assert may_break(before, after) is expected


def test_a_line_ends_at_the_last_space_or_after_punctuation_in_its_second_half() -> (
    None
):
    clause = Break(1, 10, False, True)
    plain, space = Break(2, 15, False, False), Break(3, 18, True, False)
    assert best_break([], 20) is None
    assert best_break([clause, plain, space], 20) is space
    assert best_break([clause, plain], 20) is clause
    assert best_break([clause, plain], 21) is plain
    assert best_break([clause, Break(4, 12, False, True), plain], 20) == Break(
        4, 12, False, True
    )


@pytest.mark.parametrize(
    ("text", "sign", "is_sentence", "is_clause"),
    [
        ("end.”)", ".", True, True),
        ("だ。」", "。", True, True),
        ("well,", ",", False, True),
        ("word", "d", False, False),
        ("", "", False, False),
    ],
)
def test_the_last_sign_before_closing_marks_says_what_ends(
    text: str, sign: str, is_sentence: bool, is_clause: bool
) -> None:
    assert last_sign(text) == sign
    assert ends_sentence(text) is is_sentence
    assert ends_clause(text) is is_clause


def test_wide_letters_count_two_columns_and_marks_none() -> None:
    assert columns("ab") == 2
    assert columns("日本") == 4
    assert columns("e\u0301") == 1
    assert columns("") == 0
    assert is_joined("\u0301")
    assert is_joined("\u200d")
    assert not is_joined("e")


def test_a_terminal_is_never_sent_a_control_character() -> None:
    assert printable("a\x1b[31mb\x07c\nd\u2028e\x9b") == "a[31mbc de"
