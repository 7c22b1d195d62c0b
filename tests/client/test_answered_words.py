"""A server's answer becomes the words of its text, with times as good as it has."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmlx.client.answered_words import answered_events, read_answer
from voxmlx.errors import ServerError
from voxmlx.events import Finished, UtteranceEnd, Word, WordFinal
from voxmlx.text.transcript import text_of


def answer(text: str, *words: tuple[str, float, float]) -> dict[str, Any]:
    timed = [{"word": word, "start": a, "end": z} for word, a, z in words]
    return {"text": text, "duration": 9.5, "words": timed}


def test_words_get_the_white_space_of_the_text() -> None:
    read = read_answer(
        answer(
            "one  two 日本",
            ("one", 0, 0.4),
            ("two", 0.5, 1),
            ("日", 1, 1.2),
            ("本", 1.2, 1.4),
        )
    )
    assert [(w.lead, w.text) for w in read.words] == [
        ("", "one"), ("  ", "two"), (" ", "日"), ("", "本"),
    ]  # fmt: skip
    assert read.words[1] == Word("two", 500, 1000, lead="  ")
    assert (read.duration_ms, read.has_times, read.is_estimated) == (9500, True, False)


def test_words_without_punctuation_get_that_of_the_text() -> None:
    said = [("well", 0, 0.4), ("known", 0.4, 0.8), ("he", 1, 1.2), ("said", 1.2, 1.6)]
    read = read_answer(answer('"Well-known," he said.', *said))
    # A server that tells another case than its text writes: the text before the word.
    assert [w.text for w in read.words][1:] == ['known,"', "he", "said."]
    read = read_answer(answer('"well-known," he said.', *said))
    assert [w.text for w in read.words] == ['"well-', 'known,"', "he", "said."]
    assert text_of(read.words) == '"well-known," he said.'


def test_times_of_segments_are_spread_over_their_words() -> None:
    segments = [{"text": " a bcd", "start": 1.0, "end": 2.2}]
    read = read_answer({"text": " a bcd", "duration": 3, "segments": segments})
    assert read.is_estimated
    assert read.words == (Word("a", 1000, 1400), Word("bcd", 1400, 2200))


def test_text_alone_has_no_times() -> None:
    read = read_answer({"text": " only this"})
    assert not read.has_times
    assert [w.text for w in read.words] == ["only", "this"]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"text": None},
        {"text": "a", "words": [{"word": "a"}]},
        {"text": "a", "words": [{"word": "a", "start": "soon", "end": 1}]},
        {"text": "a", "words": [{"word": 3, "start": 0, "end": 1}]},
        {"text": "a", "words": [{"word": "a", "start": 0, "end": float("inf")}]},
        {"text": "a", "words": 3},
        {"text": "a", "segments": ["a"]},
        {"text": "a", "duration": "long"},
        {"text": "a", "warnings": [{}]},
    ],
)
def test_what_is_no_answer_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match="OpenAI's dialect"):
        read_answer(content)


def test_pieces_follow_each_other_and_pauses_end_utterances() -> None:
    pieces = [
        read_answer(answer("turn on", ("turn", 0, 0.4), ("on", 0.5, 0.9))),
        read_answer(answer("it", ("it", 0.1, 0.3))).later(10_000),
    ]
    events = list(
        answered_events(pieces, 12_000, replacements={"turn on": "start"}, pause_ms=800)
    )
    assert events == [
        WordFinal(Word("start", 0, 900, lead=""), 900),
        UtteranceEnd(0, 900, 1860),
        WordFinal(Word("it", 10_100, 10_300, lead=""), 10_300),
        UtteranceEnd(10_100, 10_300, 11_260),
        Finished(12_000, 0),
    ]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b.", "a,", '"c', "日", "d-e"]), max_size=12))
def test_no_text_is_lost_whatever_a_server_calls_its_words(texts: list[str]) -> None:
    text = " ".join(texts)
    words = [(t.strip('.,"'), i, i + 0.5) for i, t in enumerate(texts)]
    read = read_answer(answer(text, *words))
    assert text_of(read.words) == text if texts else not read.words
    assert all(not any(map(str.isspace, word.text)) for word in read.words)
