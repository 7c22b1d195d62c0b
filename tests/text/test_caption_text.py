"""The text that displays show only grows at its end, and stays short."""

import pytest

from voxmlx.events import (
    ChannelEvent,
    DraftChanged,
    Event,
    Finished,
    TextDelta,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.text.caption_text import CaptionText, SplitCaptionText


def shown(*events: Event, has_final_words: bool = False) -> tuple[str, str]:
    text = CaptionText(has_final_words=has_final_words)
    text.push(events)
    return text.text, text.draft


def test_a_pause_of_two_seconds_begins_a_paragraph() -> None:
    said = [TextDelta(" one", 500), TextDelta(" two", 2500), TextDelta(" three", 4501)]
    assert shown(*said)[0] == "one two\nthree"


def test_the_draft_stands_behind_the_text_until_it_is_replaced() -> None:
    text = CaptionText()
    assert text.push([TextDelta(" turn", 500), DraftChanged(" on the", 900)])
    assert (text.text, text.draft) == ("turn", " on the")
    assert not text.push([DraftChanged(" on the", 980), UtteranceEnd(0, 1, 2)])
    assert text.push([TextDelta(" on", 900), DraftChanged(" the", 980)])
    assert (text.text, text.draft) == ("turn on", " the")
    assert text.push([Finished(1000, 12)])
    assert text.draft == ""


def test_with_a_dictionary_the_words_are_final_ones_and_there_is_no_draft() -> None:
    events = [
        TextDelta(" nine", 500),
        DraftChanged(" two", 600),
        WordFinal(Word("9", 400, 500), 900),
    ]
    assert shown(*events, has_final_words=True) == ("9", "")


def test_no_control_character_makes_a_line_or_obeys_a_terminal() -> None:
    assert shown(TextDelta(" a\nb\x1b[2Jc", 500))[0] == "a b[2Jc"


@pytest.mark.parametrize(
    "text",
    ["می\u200cخواهم", "क्\u200dष", "👩\u200d👩\u200d👧", "l\u00a0'eau", "好\u3000的"],
)
def test_a_character_that_joins_or_parts_letters_stays(text: str) -> None:
    said = ChannelEvent(1, WordFinal(Word(text, 100, 400), 900))
    several = SplitCaptionText(["Anna"])
    several.push([said, ChannelEvent(1, DraftChanged(f" {text}", 900))])
    assert (several.text, several.draft) == (f"Anna: {text}", f" {text}")
    assert shown(TextDelta(text, 500), DraftChanged(text, 600)) == (text, text)


@pytest.mark.parametrize("piece", [" word", "字", "a"])
def test_an_hour_without_a_pause_is_bounded_and_lines_stay_as_they_are(
    piece: str,
) -> None:
    text, before = CaptionText(), ""
    for i in range(9000):
        text.push([TextDelta(piece, 400 * i)])
        # What is there stays: it grows, or a whole paragraph goes.
        tail = before.partition("\n")[2]
        assert text.text.startswith(before) or text.text.startswith(tail)
        before = text.text
        assert len(text.text) <= 4010
    assert max(map(len, text.text.split("\n"))) <= 2010
