"""Words and their times are found in a server's messages, whatever it sends."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxmlx.errors import ServerError
from voxmlx.events import (
    DraftChanged,
    Event,
    Finished,
    TextDelta,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.live.remote_events import RemoteEvents
from voxmlx.text.caption_text import CaptionText


def deltas(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "transcription.delta", "delta": text} for text in texts]


DONE = {"type": "transcription.done", "usage": {"completion_tokens": 9}}


def told(messages: list[dict[str, Any]], **replacements: str) -> list[Event]:
    stream = RemoteEvents(replacements, pause_ms=800)
    stream.push(np.zeros(16_000, np.float32))
    return [event for message in messages for event in stream.receive(message)]


def words(events: list[Event]) -> list[Word]:
    return [event.word for event in events if isinstance(event, WordFinal)]


def test_the_empty_delta_before_a_word_is_its_marker() -> None:
    one, two = words(told([*deltas("", "", "", "on", "", "", " the"), DONE]))
    assert (one.text, one.lead, one.end_ms) == ("on", "", 3 * 80 - 40)
    assert (two.text, two.lead, two.end_ms) == ("the", " ", 6 * 80 - 40)


def test_words_of_a_server_that_sends_no_empty_deltas_end_at_spaces() -> None:
    events = told([*deltas("Hel", "lo", " the", "re.", " You"), DONE])
    assert [word.text for word in words(events)] == ["Hello", "there.", "You"]


def test_a_word_is_final_before_the_stream_ends() -> None:
    events = told(deltas("", "one", "", "", "", ""))
    assert [word.text for word in words(events)] == ["one"]


def test_a_draft_is_taken_as_a_whole_and_is_no_text() -> None:
    draft = {"type": "transcription.draft", "text": " on the", "time_ms": 400}
    events = told([draft, *deltas("", "one"), DONE])
    assert events[0] == DraftChanged(" on the", 400)
    assert [word.text for word in words(events)] == ["one"]


def test_no_word_stands_twice_before_the_server_sends_its_next_draft() -> None:
    stream, text = RemoteEvents({}, pause_ms=800), CaptionText()
    timed = {"type": "transcription.delta", "time_ms": 320}
    shown: list[str] = []
    for message in [
        {"type": "transcription.draft", "text": " turn on the", "time_ms": 400},
        timed | {"delta": " turn"},
        timed | {"delta": " o"},
        timed | {"delta": "n"},
        {"type": "transcription.draft", "text": " the light", "time_ms": 480},
        timed | {"delta": " a"},
    ]:
        text.push(stream.receive(message))
        shown.append(f"{text.text}|{text.draft}")
    assert shown == [
        *("| turn on the", "turn| on the", "turn o|n the"),
        *("turn on| the", "turn on| the light", "turn on a|"),
    ]


def test_a_pause_ends_an_utterance() -> None:
    events = told(deltas("", "one", *[""] * 20))
    assert sum(isinstance(event, UtteranceEnd) for event in events) == 1


def test_times_that_a_server_tells_are_taken() -> None:
    said = {"text": "turn", "lead": " ", "start_ms": 100, "end_ms": 300, "time_ms": 480}
    events = told(
        [
            {"type": "transcription.delta", "delta": " turn", "time_ms": 320},
            {"type": "transcription.word", **said},
            {
                "type": "transcription.utterance_end",
                "start_ms": 100,
                "end_ms": 300,
                "time_ms": 1200,
            },
            DONE,
        ]
    )
    assert events == [
        TextDelta(" turn", 320),
        WordFinal(Word("turn", 100, 300, lead=" "), 480),
        UtteranceEnd(100, 300, 1200),
        Finished(1000, 9),
    ]


def test_text_that_is_no_word_yet_is_kept_when_a_server_breaks_off() -> None:
    timed = {"type": "transcription.delta", "time_ms": 320}
    for messages in (deltas("", " half", " wo"), [timed | {"delta": " half wo"}]):
        stream = RemoteEvents({}, pause_ms=800)
        events = [event for message in messages for event in stream.receive(message)]
        events += stream.flush()
        assert [word.text for word in words(events)] == ["half", "wo"]
        assert not any(isinstance(event, Finished) for event in events)


def test_a_dictionary_waits_for_the_words_of_its_phrases() -> None:
    messages = [*deltas("", "turn", "", "", "", "", " on", "", "", ""), DONE]
    assert [word.text for word in words(told(messages, **{"turn on": "start"}))] == [
        "start"
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "transcription.delta"},
        {"type": "transcription.delta", "delta": "x", "time_ms": None},
        {"type": "transcription.word", "text": "x", "lead": "", "start_ms": []},
        {"type": "transcription.done", "usage": 3},
    ],
)
def test_a_message_that_makes_no_sense_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match=str(message["type"])):
        told([message])


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", " a", "b", " c.", "日", "本", " "]), max_size=40))
def test_no_text_is_lost_or_said_twice(texts: list[str]) -> None:
    events = told([*deltas(*texts), DONE])
    shown = "".join(e.text for e in events if isinstance(e, TextDelta))
    assert shown == "".join(texts)
    final = "".join(word.lead + word.text for word in words(events))
    assert final == shown.rstrip()
    assert isinstance(events[-1], Finished)
