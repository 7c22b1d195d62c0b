"""Tokens become events, wherever they were decoded."""

import numpy as np

from tests.sounds import noise, silence
from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.events import Event, TextDelta, TokenDecoded, UtteranceEnd, Word, WordFinal
from voxmlx.text.event_assembler import EventAssembler

PAD, WORD, TEXT = (STREAMING_PAD_ID, ""), (STREAMING_WORD_ID, ""), 1000
# A marker at 880 ms, so the word ends at 840 ms.
HELLO = [PAD] * 10 + [WORD, (TEXT, "hello")]


def pushed(assembler: EventAssembler, script: list[tuple[int, str]]) -> list[Event]:
    return [
        event
        for i, (token_id, text) in enumerate(script)
        for event in assembler.push(TokenDecoded(token_id, i, 80 * (i + 1)), text)
    ]


def test_text_comes_first_then_the_word_then_the_pause() -> None:
    assert pushed(EventAssembler({}, 800), HELLO + [PAD] * 40) == [
        TextDelta("hello", 960),
        WordFinal(Word("hello", 40, 840, None, ""), 1200),
        UtteranceEnd(40, 840, 1760),
    ]


def test_the_sound_says_when_a_word_begins_and_whether_a_pause_is_one() -> None:
    assembler = EventAssembler({}, 800)
    sound = [silence(400 * 16), noise(440 * 16), silence(2000 * 16)]
    assembler.push_sound(np.concatenate(sound))
    events = pushed(assembler, HELLO + [PAD] * 10)
    assert events[1:] == [
        WordFinal(Word("hello", 400, 840, None, ""), 1200),
        UtteranceEnd(400, 840, 1760),
    ]
    loud = EventAssembler({}, 800)
    loud.push_sound(np.concatenate([silence(400 * 16), noise(4000 * 16)]))
    (end,) = [
        event
        for event in pushed(loud, HELLO + [PAD] * 40)
        if isinstance(event, UtteranceEnd)
    ]
    assert end.time_ms == 80 * (12 + 30)


def test_the_end_of_a_stream_ends_its_last_word_and_utterance() -> None:
    assembler = EventAssembler({}, 800)
    pushed(assembler, [*HELLO[:-1], (TEXT, "hel")])
    assert assembler.flush("lo", 1000) == [
        TextDelta("lo", 1000),
        WordFinal(Word("hello", 40, 840, None, ""), 1000),
        UtteranceEnd(40, 840, 1000),
    ]
    assert assembler.flush("", 1000) == []


def test_a_word_that_may_begin_a_longer_key_waits_for_a_pause_or_the_end() -> None:
    word = Word("new", 0, 100)
    end = UtteranceEnd(0, 100, 900)
    assembler = EventAssembler({"new york": "NYC"}, 800)
    assert assembler.finalize([word], 200) == []
    assert assembler.finalize([], 900, end) == [WordFinal(word, 900), end]
    assert assembler.finalize([word], 1000, is_last=True) == [WordFinal(word, 1000)]
    assert assembler.finalize([word], 1100) == []
    (final,) = assembler.finalize([Word("york", 100, 200, None, " ")], 1200)
    assert final == WordFinal(Word("NYC", 0, 200), 1200)


def test_a_stream_that_ends_inside_a_key_says_the_words_as_heard() -> None:
    assembler = EventAssembler({"hello world": "hi"}, 800)
    pushed(assembler, HELLO)
    assert assembler.flush("", 1000) == [
        WordFinal(Word("hello", 40, 840, None, ""), 1000),
        UtteranceEnd(40, 840, 1000),
    ]


def test_no_word_ends_after_the_stream() -> None:
    assembler = EventAssembler({}, 800)
    pushed(assembler, HELLO)
    assert assembler.flush("", 820) == [
        WordFinal(Word("hello", 20, 820, None, ""), 820),
        UtteranceEnd(20, 820, 820),
    ]
