"""The echo of another channel is left out, and own words are not."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from tests.dialogues import Call, events_of, make_call
from tests.held import held_bytes
from voxmlx.events import (
    ChannelEvent,
    DraftChanged,
    Event,
    Finished,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.text.echo import MeasuredWord, is_covered, is_repeat
from voxmlx.text.echo_filter import EchoFilter


def events_by_token(call: Call, ahead: int = 0) -> list[ChannelEvent]:
    """Both channels' events; channel 1 comes `ahead` audio tokens before channel 2."""
    n_tokens = len(call.amplitudes[0]) // 8
    rows: list[tuple[int, int, ChannelEvent]] = []
    for channel in (1, 2):
        index = 0
        for event in events_of(call.words[channel - 1], channel, n_tokens):
            if isinstance(event.event, TokenDecoded):
                index = event.event.index
            rows.append((index - ahead * (channel == 1), channel, event))
    return [event for *_, event in sorted(rows, key=lambda row: row[:2])]


def told(call: Call, *, ahead: int = 0, keeps: bool = False) -> list[ChannelEvent]:
    echo = EchoFilter(2, keeps=keeps)
    for channel in (1, 2):
        echo.push_sound(channel, call.sound(channel - 1))
    return [one for event in events_by_token(call, ahead) for one in echo.push(event)]


def words(events: list[ChannelEvent], channel: int) -> list[Word]:
    return [
        one.event.word
        for one in events
        if one.channel == channel and isinstance(one.event, WordFinal)
    ]


@dataclass(slots=True)
class Score:
    n_own: int = 0
    n_own_lost: int = 0
    n_echoes: int = 0
    n_echoes_left: int = 0
    n_doubled_lines: int = 0

    def add(self, call: Call) -> None:
        events = told(call)
        left = [words(events, 1), words(events, 2)]
        echoes = set(map(id, call.echoes))
        for side in range(2):
            kept = set(map(id, left[side]))
            own = [word for word in call.words[side] if id(word) not in echoes]
            self.n_own += len(own)
            self.n_own_lost += sum(id(word) not in kept for word in own)
        stray = [id(word) in echoes for word in left[0]]
        self.n_echoes += len(echoes)
        self.n_echoes_left += sum(stray)
        # Two words in a row make a line that somebody has read already.
        repeated = echoes - set(map(id, call.misheard))
        stray = [id(word) in repeated for word in left[0]]
        self.n_doubled_lines += sum(a and b for a, b in pairwise(stray))


def score_of(n_calls: int, n_turns: int) -> Score:
    score = Score()
    for seed in range(n_calls):
        score.add(make_call(seed, n_turns=n_turns))
    return score


def check(score: Score) -> None:
    assert score.n_own_lost < 0.01 * score.n_own, score
    assert score.n_doubled_lines == 0, score
    assert score.n_echoes_left < 0.01 * score.n_echoes, score


def test_of_many_calls_no_line_is_doubled_and_own_words_stay() -> None:
    score = score_of(200, n_turns=3)
    assert score.n_own > 3_000
    check(score)


@pytest.mark.slow
def test_of_a_thousand_long_calls_no_line_is_doubled_and_own_words_stay() -> None:
    score = score_of(1000, n_turns=8)
    assert score.n_own > 40_000
    check(score)


def test_what_is_decided_does_not_depend_on_which_channel_is_ahead() -> None:
    for seed in range(5):
        call = make_call(seed, n_turns=3)
        expected = told(call)
        for ahead in (-20, 7, 30):
            events = told(call, ahead=ahead)
            for channel in (1, 2):
                assert of(events, channel) == of(expected, channel)


def of(events: list[ChannelEvent], channel: int) -> list[Event]:
    return [one.event for one in events if one.channel == channel]


def test_kept_echoes_are_marked_and_nothing_is_lost() -> None:
    call = make_call(3, n_turns=3)
    events, left = told(call, keeps=True), told(call)
    marked = [word for word in words(events, 1) if word.is_echo]
    assert len(marked) > 5
    assert len(words(events, 1)) == len(call.words[0])
    assert [word for word in words(events, 1) if not word.is_echo] == words(left, 1)
    assert not any(word.is_echo for word in words(events, 2))


SOURCE = Word("heating", 1000, 1400, 0.95)


@pytest.mark.parametrize(
    ("word", "level_dbfs", "is_echo"),
    [
        (Word("heating", 1100, 1500, 0.9), -32.0, True),
        (Word("Heating,", 1100, 1500, 0.9), -32.0, True),
        (Word("heeding", 1100, 1500, 0.5), -32.0, True),
        (Word("heating", 1100, 1500, None), -32.0, True),
        (Word("heating", 1100, 1500, 0.9), -22.0, False),  # as loud as it
        (Word("heating", 1100, 1500, 0.9), -10.0, False),
        (Word("heating", 2000, 2400, 0.9), -32.0, False),  # too late
        (Word("heating", 400, 800, 0.9), -32.0, False),  # before it
        (Word("lights", 1100, 1500, 0.9), -32.0, False),
    ],
)
def test_an_echo_repeats_a_word_shortly_after_it_and_quieter(
    word: Word, level_dbfs: float, is_echo: bool
) -> None:
    others = [MeasuredWord(SOURCE, -20.0)]
    assert is_repeat(MeasuredWord(word, level_dbfs), others) == is_echo


def test_a_word_that_the_model_is_surer_of_must_be_quieter_to_be_an_echo() -> None:
    others = [MeasuredWord(Word("heating", 1000, 1400, 0.4), -20.0)]
    for level_dbfs, is_echo in ((-28.0, False), (-32.0, True)):
        word = MeasuredWord(Word("heating", 1100, 1500, 0.95), level_dbfs)
        assert is_repeat(word, others) == is_echo


def test_a_word_of_other_text_is_covered_only_by_louder_ones_all_the_time() -> None:
    others = [MeasuredWord(SOURCE, -20.0)]
    for word, level_dbfs, is_hidden in (
        (Word("eating", 1100, 1500, 0.9), -32.0, True),
        (Word("eating", 1100, 1500, 0.9), -26.0, False),
        (Word("eating", 1100, 1900, 0.9), -32.0, False),
        (Word("eating", 700, 1400, 0.9), -32.0, False),
    ):
        assert is_covered(MeasuredWord(word, level_dbfs), others) == is_hidden


def call_of(mine: list[Word], theirs: list[Word], n_tokens: int) -> Call:
    """A call in which channel 1 is 12 dB quieter than channel 2, all the time."""
    levels = [np.full(n_tokens * 8, a, np.float32) for a in (0.025, 0.1)]
    return Call(words=[mine, theirs], amplitudes=levels)


def test_where_nobody_else_speaks_a_word_waits_for_one_audio_token_at_most() -> None:
    call = call_of([Word("yes", 1000, 1400), Word("no", 3000, 3300)], [], 60)
    echo = EchoFilter(2)
    now_ms = 0
    waited_ms: list[int] = []
    for event in events_by_token(call):
        if isinstance(event.event, TokenDecoded):
            now_ms = event.event.time_ms
        waited_ms += [
            now_ms - one.event.time_ms
            for one in echo.push(event)
            if isinstance(one.event, WordFinal)
        ]
    assert len(waited_ms) == 2
    assert max(waited_ms) <= 80


SAID = [Word("turn", 1000, 1300), Word("it", 1320, 1480), Word("off", 1500, 1800)]
HEARD = [Word("turn", 1100, 1380), Word("hit", 1400, 1580), Word("of", 1600, 1880)]
OWN = [Word("thanks", 3000, 3400)]


def utterance_ends(events: list[ChannelEvent], channel: int) -> list[UtteranceEnd]:
    return [one for one in of(events, channel) if isinstance(one, UtteranceEnd)]


@pytest.mark.parametrize(
    ("mine", "spans"),
    [(HEARD, []), ([*HEARD, *OWN], [(3000, 3400)]), (OWN, [(1100, 3400)])],
)
def test_an_utterance_ends_as_far_as_it_is_no_echo(
    mine: list[Word], spans: list[tuple[int, int]]
) -> None:
    call = call_of(mine, SAID, 80)
    end = ChannelEvent(1, UtteranceEnd(1100, 3400, 4800))
    events = [
        *events_by_token(call)[:-2],
        end,
        *(ChannelEvent(2, TokenDecoded(32, 80 + i, 6480 + 80 * i)) for i in range(9)),
    ]
    echo = EchoFilter(2)
    for channel in (1, 2):
        echo.push_sound(channel, call.sound(channel - 1))
    passed = [one for event in events for one in echo.push(event)]
    ends = utterance_ends(passed, 1)
    assert [(one.start_ms, one.end_ms) for one in ends] == spans


def test_text_that_waits_is_a_draft_and_follows_what_is_told() -> None:
    call = call_of([*HEARD, *OWN], SAID, 60)
    echo = EchoFilter(2, has_drafts=True)
    for channel in (1, 2):
        echo.push_sound(channel, call.sound(channel - 1))
    text = ["", "", ""]
    drafts: list[set[str]] = [set(), set(), set()]
    events: list[ChannelEvent] = []
    for event in events_by_token(call):
        if isinstance(event.event, WordFinal):
            word = event.event.word
            delta = TextDelta(word.lead + word.text, event.event.time_ms)
            events.append(ChannelEvent(event.channel, delta))
        events.append(event)
    for one in [one for event in events for one in echo.push(event)]:
        match one.event:
            case TextDelta(text=delta):
                text[one.channel] += delta
            case DraftChanged(text=draft):
                drafts[one.channel].add(draft)
            case _:
                pass
    assert text[1:] == [" thanks", " turn it off"]
    assert "" in drafts[1]
    assert any(draft.startswith(" turn") for draft in drafts[1])


@pytest.mark.parametrize("keeps", [False, True])
def test_a_dictionary_hides_no_echo_and_writes_the_words_that_pass(keeps: bool) -> None:
    """The source is in the dictionary, and its misheard echo is not."""
    call = call_of([*HEARD, *OWN], SAID, 60)
    written = {"turn it off": "Voxtral", "thanks": "many thanks"}
    echo = EchoFilter(2, keeps=keeps, replacements=written)
    for channel in (1, 2):
        echo.push_sound(channel, call.sound(channel - 1))
    events = [one for event in events_by_token(call) for one in echo.push(event)]
    mine = [(word.text, word.is_echo) for word in words(events, 1)]
    heard = [("turn", True), ("hit", True), ("of", True)] if keeps else []
    assert mine == [*heard, ("many", False), ("thanks", False)]
    assert [word.text for word in words(events, 2)] == ["Voxtral"]
    deltas = [one.text for one in of(events, 2) if isinstance(one, TextDelta)]
    assert deltas == [" Voxtral"]
    # As the sessions wrote them, nothing of the echo is alike.
    source = MeasuredWord(Word("Voxtral", 1000, 1800), -20.0)
    assert not is_repeat(MeasuredWord(HEARD[0], -32.0), [source])


def test_a_phrase_that_is_held_back_comes_with_the_end_of_its_utterance() -> None:
    echo = EchoFilter(2, has_drafts=True, replacements={"turn it off": "Voxtral"})
    told: list[Event] = []
    for event in (
        WordFinal(SAID[0], 1400),
        WordFinal(SAID[1], 1600),
        UtteranceEnd(1000, 1480, 2500),
        Finished(4000, 50),
    ):
        told += of(echo.push(ChannelEvent(2, event)), 2)
        told += of(echo.push(ChannelEvent(1, Finished(4000, 50))), 2)
    final = [one for one in told if not isinstance(one, TextDelta | DraftChanged)]
    assert final == [
        WordFinal(SAID[0], 2500),
        WordFinal(SAID[1], 2500),
        UtteranceEnd(1000, 1480, 2500),
        Finished(4000, 50),
    ]
    drafts = [one.text for one in told if isinstance(one, DraftChanged)]
    assert drafts == [" turn", " turn it", ""]


def test_what_is_remembered_does_not_grow_even_if_one_channel_stands_still() -> None:
    echo = EchoFilter(2)
    held: list[int] = []
    for index in range(12_000):
        time_ms = 80 * (index + 1)
        echo.push(ChannelEvent(1, TokenDecoded(32, index, time_ms)))
        if index % 6 == 0:
            word = Word("and", time_ms - 300, time_ms - 40)
            echo.push(ChannelEvent(1, WordFinal(word, time_ms)))
        if index in (6_500, 11_999):
            held.append(held_bytes(echo))
    assert held[1] < 1.01 * held[0]
