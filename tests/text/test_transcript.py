"""Words become segments that read well, and nothing of the text is lost."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.spoken import spoken, word_lists
from voxmlx.events import Finished, SoundWarning, UtteranceEnd, Word, WordFinal
from voxmlx.text.formats import render
from voxmlx.text.transcript import (
    Segment,
    Segmenter,
    SegmentRules,
    Transcript,
    TranscriptBuilder,
    columns,
    text_of,
    wrap,
)


def segmented(
    words: Sequence[Word], rules: SegmentRules | None = None
) -> list[Segment]:
    segmenter = Segmenter(rules)
    segments = [segment for word in words for segment in segmenter.push(word)]
    return segments + segmenter.flush()


@given(word_lists(), st.integers(1, 50), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_segments_hold_every_word_once_and_keep_the_limits(
    words: list[Word], max_line_chars: int, max_lines: int
) -> None:
    rules = SegmentRules(800, 7000, max_line_chars, max_lines)
    segments = segmented(words, rules)
    assert [word for segment in segments for word in segment.words] == words
    for segment in segments:
        lines = wrap(segment.words, max_line_chars)
        assert len(lines) <= max_lines
        assert len(segment.words) == 1 or segment.end_ms - segment.start_ms <= 7000
        for line in lines:
            text = " ".join(text_of(line).split())
            assert len(line) == 1 or columns(text) <= max_line_chars


@given(word_lists(), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_lines_hold_every_word_and_are_as_few_as_can_be(
    words: list[Word], max_columns: int
) -> None:
    lines = wrap(words, max_columns)
    assert [word for line in lines for word in line] == words
    for line in lines:
        text = " ".join(text_of(line).split())
        assert len(line) == 1 or columns(text) <= max_columns
    for line, following in pairwise(lines):
        text = " ".join(text_of([*line, *following]).split())
        assert columns(text) > max_columns or len(lines) > 2


def test_two_lines_are_about_equally_long() -> None:
    words = spoken("one two three four five six seven eight nine ten")
    lines = [text_of(line) for line in wrap(words, 42)]
    assert lines == ["one two three four five", "six seven eight nine ten"]
    assert wrap(words, None) == [words]


def test_wide_characters_count_two_and_marks_none() -> None:
    assert [columns(text) for text in ("ab", "你好", "e\u0301", "🙂", "")] == [
        2,
        4,
        1,
        2,
        0,
    ]


def test_a_pause_a_sentence_or_a_full_segment_ends_it() -> None:
    words = spoken("It is done now. And so on")
    assert [s.text for s in segmented(words)] == ["It is done now.", "And so on"]
    late = [
        *words[:2],
        *(Word(w.text, w.start_ms + 800, w.end_ms + 800) for w in words[2:4]),
    ]
    assert [s.text for s in segmented(late)] == ["It is", "done now."]
    short = SegmentRules(max_ms=600)
    assert [s.text for s in segmented(words[:5], short)] == [
        "It is",
        "done now.",
        "And",
    ]
    narrow = SegmentRules(max_line_chars=5, max_lines=1)
    assert [s.text for s in segmented(words[4:], narrow)] == ["And", "so on"]


@pytest.mark.parametrize("text", ["He is Mr. Smith", "the 3. day", "a 3.5 b"])
def test_not_every_full_stop_ends_a_sentence(text: str) -> None:
    assert [s.text for s in segmented(spoken(text))] == [text]


@pytest.mark.parametrize("text", ["你好。", "Stop!", "what?”", "Really… ", "متى؟"])
def test_other_signs_do(text: str) -> None:
    assert len(segmented(spoken(f"{text} more"))) == 2


@given(word_lists())
@settings(max_examples=100, deadline=None)
def test_a_transcript_is_the_words_of_the_events(words: list[Word]) -> None:
    events = [WordFinal(word, word.end_ms) for word in words]
    transcript = Transcript.from_events([*events, Finished(90_000, 1125)])
    assert list(transcript.words) == words
    assert transcript.duration_ms == 90_000
    whole = "".join(word.lead + word.text for word in words)
    assert transcript.text == whole.lstrip()


def test_the_end_of_an_utterance_ends_a_segment() -> None:
    first, second = spoken("one two")
    transcript = Transcript.from_events(
        [WordFinal(first, 600), UtteranceEnd(0, 300, 1200), WordFinal(second, 1500)]
    )
    assert [segment.text for segment in transcript.segments] == ["one", "two"]


def said(text: str, start_ms: int, end_ms: int) -> Word:
    return Word(text, start_ms, end_ms)


def test_a_transcript_renders_itself_in_each_format() -> None:
    transcript = Transcript.from_events([WordFinal(said("hello", 0, 500), 500)])
    assert transcript.to_srt() == render(transcript, "srt")
    assert transcript.to_vtt() == render(transcript, "vtt")
    assert transcript.to_json() == render(transcript, "json")


def test_a_builder_keeps_segments_warnings_and_the_duration() -> None:
    rules = SegmentRules(pause_ms=100)
    warning = SoundWarning("gap", "Sound is missing.", 100)
    events = [
        WordFinal(said("a", 0, 100), 200),
        WordFinal(said("b", 300, 400), 500),
        UtteranceEnd(0, 400, 1200),
        warning,
        WordFinal(said("c", 450, 500), 1300),
    ]
    builder = TranscriptBuilder(rules)
    for event in events:
        builder.feed(event)
    transcript = builder.build()
    assert transcript.duration_ms == 0
    assert transcript.warnings == (warning,)
    assert [segment.text for segment in transcript.segments] == ["a", "b", "c"]
    finished = Transcript.from_events([*events, Finished(2000, 25)], rules)
    assert finished.duration_ms == 2000
    assert finished.segments == transcript.segments


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        # After a comma in the second half; else at the last place, wherever commas are.
        (["aaaa", "bbbb,", "cccc", "dddd"], ["aaaa bbbb,", "cccc dddd"]),
        (["aa,", "bbbbbb", "cccc", "dddd"], ["aa, bbbbbb cccc", "dddd"]),
        # Exactly one half is enough.
        (["aaaaaaaa,", "bbb", "cccc"], ["aaaaaaaa,", "bbb cccc"]),
        # The only place is after the first word.
        (["a", "bbbbbbbbbbbbbbbbbb"], ["a", "bbbbbbbbbbbbbbbbbb"]),
    ],
)
def test_a_full_segment_ends_after_a_clause_in_its_second_half_or_as_late_as_it_can(
    texts: list[str], expected: list[str]
) -> None:
    segmenter = Segmenter(SegmentRules(max_line_chars=16, max_lines=1))
    segments: list[Segment] = []
    for i, text in enumerate(texts):
        segments += segmenter.push(said(text, 100 * i, 100 * i + 100))
    segments += segmenter.flush()
    assert [segment.text for segment in segments] == expected
