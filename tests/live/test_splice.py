"""Streams that follow each other say everything once."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.held import held_bytes
from voxmlx.events import (
    DraftChanged,
    Event,
    Finished,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.live.splice import CONTEXT_MS, Splice, aligned

Spoken = tuple[str, int, bool]  # a word, how long it lasts, and whether a pause follows

SPOKEN = st.lists(
    st.tuples(st.sampled_from(["no", "yes", "it", "is", "日"]), st.integers(2, 9))
    .map(lambda said: (said[0], 80 * said[1]))
    .flatmap(lambda said: st.tuples(*map(st.just, said), st.booleans())),
    min_size=1,
    max_size=60,
)


def stream(spoken: list[Spoken], base_ms: int = 0) -> list[Event]:
    """The events of a stream that begins at `base_ms` of what is spoken."""
    events: list[Event] = []
    ms = 0
    start_ms: int | None = None
    for text, duration_ms, is_last in spoken:
        begin_ms, ms = ms, ms + duration_ms
        if begin_ms >= base_ms:
            start_ms = begin_ms if start_ms is None else start_ms
            word = Word(text, begin_ms - base_ms, ms - base_ms)
            events.append(TextDelta(f" {text[:1]}", ms - base_ms))
            if text[1:]:
                events.append(TextDelta(text[1:], ms - base_ms))
            events.append(WordFinal(word, ms - base_ms))
        if is_last:
            end_ms, ms = ms, ms + 1600
            if start_ms is not None:
                times = (start_ms, end_ms, end_ms + 800)
                events.append(UtteranceEnd(*(t - base_ms for t in times)))
            start_ms = None
    return [*events, Finished(ms - base_ms, (ms - base_ms) // 80)]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@settings(deadline=None, max_examples=40)
@given(SPOKEN, st.lists(st.integers(0, 200), max_size=4))
def test_streams_that_break_off_say_what_one_stream_says(
    spoken: list[Spoken], breaks: list[int]
) -> None:
    splice = Splice()
    said: list[Event] = []
    base_ms = 0
    for n in breaks:
        for event in stream(spoken, base_ms)[:-1][:n]:
            said += splice.push([event])
        base_ms = splice.restart_ms
        splice.restart(base_ms)
    for event in stream(spoken, base_ms):
        said += splice.push([event])
    whole = stream(spoken)
    assert text_of(said) == text_of(whole)  # its pieces may be cut elsewhere
    for kind in (WordFinal, UtteranceEnd, Finished):
        expected = [event for event in whole if isinstance(event, kind)]
        assert [event for event in said if isinstance(event, kind)] == expected


def test_a_word_that_is_heard_otherwise_is_neither_doubled_nor_taken_back() -> None:
    splice = Splice()
    first = stream([("turn", 400, False), ("of", 400, False)])[:-1]
    said = splice.push(first)
    splice.restart(0)
    again = [("Turn", 400, False), ("off", 480, False), ("the", 400, False)]
    said += splice.push(stream([*again, ("heating", 4000, False)]))
    words = [event.word.text for event in said if isinstance(event, WordFinal)]
    assert words == ["turn", "of", "the", "heating"]
    assert text_of(said) == " turn off the heating"


def test_ids_are_counted_through_all_streams() -> None:
    splice = Splice()
    tokens = [TokenDecoded(32, i, 80 * (i + 1)) for i in range(5)]
    said = splice.push(tokens[:3])
    splice.restart(160)
    said += splice.push([TokenDecoded(32, i, 80 * (i + 1)) for i in range(3)])
    assert said == tokens


def test_what_a_day_leaves_behind_is_no_more_than_a_minute_does() -> None:
    splice = Splice()
    held: list[int] = []
    for i in range(20_000):
        word = Word("word", 300 * i, 300 * i + 240)
        splice.push([TextDelta(" word", word.end_ms), WordFinal(word, word.end_ms)])
        if i % 400 == 399:
            held.append(held_bytes(splice))
    assert 15_000 <= 300 * 20_000 - splice.restart_ms <= 61_000
    assert max(held[25:]) <= 1.1 * max(held[:25])


def test_silence_need_not_be_heard_again() -> None:
    splice = Splice()
    splice.push(stream([("a", 400, True)])[:-1])
    held: list[int] = []
    for ms in range(0, 3_600_000, 1000):
        splice.silent_until(ms)
        held.append(held_bytes(splice) if ms % 60_000 == 0 else 0)
    assert splice.restart_ms >= 3_600_000 - 3 * CONTEXT_MS
    assert max(held[1800:]) <= max(held[:1800])


def test_texts_of_a_minute_are_compared_within_a_second() -> None:
    said = ["other", *(f"w{i % 7}" for i in range(299))]
    again = [f"w{i % 7}" for i in range(-1, 299)]
    started = time.process_time()
    assert aligned(said, [*again, *again]) == 300
    assert time.process_time() - started < 1


def test_a_draft_behind_text_that_is_only_repeated_is_left_out() -> None:
    def said(text: str, ms: int) -> list[Event]:
        return [TextDelta(f" {text}", ms), WordFinal(Word(text, ms - 80, ms), ms)]

    splice = Splice()
    splice.push([*said("one", 400), DraftChanged(" two", 400)])
    splice.restart(0)
    again = [DraftChanged(" one", 80), *said("one", 400), DraftChanged(" two", 480)]
    again += [*said("two", 4000), DraftChanged(" three", 4080)]
    drafts = [one.text for one in splice.push(again) if isinstance(one, DraftChanged)]
    assert drafts == [" two", " three"]


def test_a_stream_that_goes_on_in_a_pause_begins_with_a_space_where_its_script_has_one() -> (
    None
):
    for first, lead in (("yes", " "), ("日", ""), (" yes", "")):
        splice = Splice()
        before: list[Event] = [
            TextDelta("no", 160),
            WordFinal(Word("no", 0, 160, lead=""), 240),
            UtteranceEnd(0, 160, 960),
        ]
        assert splice.push(before) == before
        splice.restart(560)
        word = first.strip()
        after = splice.push(
            [
                TextDelta(first, 160),
                WordFinal(Word(word, 0, 160, lead=""), 240),
                TextDelta(" it", 400),
            ]
        )
        assert text_of(after) == f"{lead}{first} it"
        words = [event.word for event in after if isinstance(event, WordFinal)]
        assert [word.lead for word in words] == [" " if word.isascii() else ""]
        # The beginning, heard again, has none.
        again = Splice()
        again.restart(0)
        assert again.push(before) == before
