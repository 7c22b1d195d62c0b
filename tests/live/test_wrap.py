"""Text that grows is broken into lines that never change and lose nothing."""

import unicodedata
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from voxmlx.live.wrap import Wrapper
from voxmlx.text.line_breaks import may_break

ALPHABET = "ab é \u0301 你好，。「」 مرحبا שלום 🙂\u200d한글 カナ"


def wrapped(pieces: list[str], width: int) -> list[str]:
    wrapper = Wrapper()
    lines = [line for piece in pieces for line in wrapper.feed(piece, width)]
    return lines + wrapper.end_paragraph()


@settings(deadline=None)
@given(st.lists(st.text(ALPHABET, max_size=12)), st.integers(2, 30))
def test_lines_fit_and_lose_only_spaces(pieces: list[str], width: int) -> None:
    lines = wrapped(pieces, width)
    assert "".join(lines).replace(" ", "") == "".join(pieces).replace(" ", "")
    for line in lines:
        # Marks alone, without a letter, have no width to break at.
        assert cell_len(line) <= width or cell_len(line[0]) == 0
        assert line == line.strip(" ")


@settings(deadline=None)
@given(st.text(ALPHABET, max_size=60), st.integers(4, 30), st.data())
def test_lines_do_not_depend_on_how_the_text_came(
    text: str, width: int, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(text)))
    whole, halves = wrapped([text], width), wrapped([text[:cut], text[cut:]], width)
    # A mark that comes later belongs to a letter that was on the line already.
    if cut == len(text) or not unicodedata.category(text[cut]).startswith("M"):
        assert halves == whole


def test_words_stay_whole_and_chinese_breaks_anywhere_but_before_a_comma() -> None:
    assert wrapped(["the quick brown fox"], 10) == ["the quick", "brown fox"]
    assert wrapped(["今天天气很好，我们去公园"], 12) == [
        "今天天气很",
        "好，我们去公",
        "园",
    ]
    assert wrapped(["مرحبا بالعالم الجميل"], 12) == ["مرحبا", "بالعالم", "الجميل"]


def test_a_word_wider_than_the_line_is_cut_but_never_from_its_accents() -> None:
    assert wrapped(["a\u0301" * 7], 3) == ["a\u0301" * 3, "a\u0301" * 3, "a\u0301"]


def test_a_complete_line_comes_out_at_once() -> None:
    wrapper = Wrapper()
    assert wrapper.feed("one two", 7) == []
    assert wrapper.feed(" three", 7) == ["one two"]
    assert wrapper.current == "three"


def test_captions_and_subtitles_break_lines_by_one_rule() -> None:
    text = "「チョコレート」とジュースをいっぱい買ってキャンプにしゅっぱつしましょう、きっと。"
    for width in range(6, 40):
        lines = wrapped([text], width)
        assert "".join(lines) == text
        for line, following in pairwise(lines):
            assert may_break(line[-1], following[0])


def test_a_line_ends_after_punctuation_in_its_second_half() -> None:
    assert wrapped(["我们三点见面，然后一起去吃饭"], 20)[0] == "我们三点见面，"
    assert wrapped(["好，我们三点见面然后一起去吃饭"], 20)[0] == "好，我们三点见面然后"
