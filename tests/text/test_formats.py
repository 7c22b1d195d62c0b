"""Files that other programs read, whose cues hold every word once and in time."""

import html
import io
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pysrt
import pytest
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.held import held_bytes
from tests.spoken import spoken, word_lists
from voxmlx.events import (
    Alternative,
    Event,
    Finished,
    GuardActed,
    Recovered,
    TextDelta,
    TokenDecoded,
    UtteranceEnd,
    Word,
    WordFinal,
)
from voxmlx.text.formats import FORMATS, FormatOptions, TxtWriter, Writer, make_writer
from voxmlx.text.json_writers import JsonLinesWriter, JsonWriter
from voxmlx.text.line_breaks import columns
from voxmlx.text.subtitles import CueRules, SrtWriter, VttWriter
from voxmlx.text.transcript import wrap
from voxmlx.text.words import pieces_of

Cue = tuple[int, int, str]


def events_of(words: Sequence[Word]) -> list[Event]:
    end_ms = words[-1].end_ms if words else 0
    return [
        *(WordFinal(word, word.end_ms) for word in words),
        Finished(end_ms + 500, end_ms // 80),
    ]


def written(writer: Writer, events: Sequence[Event]) -> str:
    return "".join([*map(writer.feed, events), writer.end()])


def srt_cues(text: str) -> list[Cue]:
    items = pysrt.from_string(text, error_handling=pysrt.ERROR_RAISE)
    assert [item.index for item in items] == list(range(1, len(items) + 1))
    return [(item.start.ordinal, item.end.ordinal, item.text) for item in items]


def vtt_cues(text: str) -> list[Cue]:
    captions = webvtt.from_buffer(io.StringIO(text))
    return [(_ms(c.start), _ms(c.end), html.unescape(c.text)) for c in captions]


def _ms(clock: str) -> int:
    hours, minutes, seconds = clock.split(":")
    return (int(hours) * 60 + int(minutes)) * 60_000 + int(seconds.replace(".", ""))


def without_space(text: str) -> str:
    return "".join(text.split())


def assert_good(cues: Sequence[Cue], words: Sequence[Word]) -> None:
    """Cues follow one another, hold the text of the words, and begin in time."""
    times = [time for start, end, _ in cues for time in (start, end)]
    assert times == sorted(times)
    assert all(start < end for start, end, _ in cues)
    text = "".join(text for _, _, text in cues)
    assert without_space(text) == without_space("".join(word.text for word in words))


@given(word_lists())
@settings(max_examples=100)
def test_pysrt_reads_every_word_in_cues_that_never_overlap(words: list[Word]) -> None:
    assert_good(srt_cues(written(SrtWriter(), events_of(words))), words)


@given(word_lists(), st.booleans())
@settings(max_examples=100)
def test_webvtt_reads_every_word_in_cues_that_never_overlap(
    words: list[Word], has_word_times: bool
) -> None:
    text = written(VttWriter(has_word_times=has_word_times), events_of(words))
    assert_good(vtt_cues(text), words)


@given(word_lists(), st.sampled_from(["srt", "vtt"]))
@settings(max_examples=50)
def test_a_subtitle_file_is_valid_after_every_event(
    words: list[Word], name: str
) -> None:
    writer = make_writer(name)
    text, cues = "", []
    for event in events_of(words):
        text += writer.feed(event)
        now = srt_cues(text) if name == "srt" else vtt_cues(text)
        assert now[: len(cues)] == cues, "a cue changed after it was written"
        cues = now
    assert writer.end() == ""
    assert_good(cues, words)


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_ffmpeg_reads_the_file(name: str, tmp_path: Path) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("ffmpeg is not installed: whether it reads srt and vtt is untested")
    words = [
        *spoken("Hello there, you two. This is 5 < 6 & 7 --> 8. 你好,世界。 مرحبا 🙂"),
        *spoken("And that was all of it.", start_ms=70_000),
    ]
    source, copy = tmp_path / f"words.{name}", tmp_path / "copy.srt"
    source.write_text(written(make_writer(name), events_of(words)), encoding="utf-8")
    command = [ffmpeg, "-v", "warning", "-i", str(source), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    cues = srt_cues(copy.read_text(encoding="utf-8"))
    own = srt_cues(written(SrtWriter(), events_of(words)))
    assert [cue[:2] for cue in cues] == [cue[:2] for cue in own]
    text = without_space("".join(text for _, _, text in cues))
    assert without_space(html.unescape(text)) == without_space(
        "".join(word.text for word in words)
    )


@pytest.mark.parametrize(
    ("time_ms", "expected"),
    [
        (0, "00:00:00,000"),
        (59_999, "00:00:59,999"),
        (60_000, "00:01:00,000"),
        (3_599_999, "00:59:59,999"),
        (360_000_001, "100:00:00,001"),
    ],
)
def test_a_time_is_printed_to_the_millisecond(time_ms: int, expected: str) -> None:
    word = Word("late", time_ms, time_ms + 2000)
    assert written(SrtWriter(), events_of([word])).splitlines()[1].startswith(expected)
    vtt = written(VttWriter(), events_of([word])).splitlines()[2]
    assert vtt.startswith(expected.replace(",", "."))


def test_lines_are_at_most_42_columns_and_two_to_a_cue() -> None:
    words = spoken(
        "a rather long sentence that goes on and on until it is full " * 5, 100
    )
    for start, end, text in srt_cues(written(SrtWriter(), events_of(words))):
        lines = text.split("\n")
        assert len(lines) <= 2
        assert all(len(line) <= 42 for line in lines)
        assert end - start <= 7000


def test_the_limits_are_options() -> None:
    words = spoken("one two three four five", 500)

    def texts(rules: CueRules) -> list[str]:
        return [
            text for _, _, text in srt_cues(written(SrtWriter(rules), events_of(words)))
        ]

    assert texts(CueRules(9, 1)) == ["one two", "three", "four five"]
    assert texts(CueRules(9, 3)) == ["one two\nthree\nfour five"]
    assert texts(CueRules(max_ms=1400)) == ["one two", "three four", "five"]
    assert texts(CueRules()) == ["one two three four five"]


def test_a_cue_stays_up_long_enough_to_be_read_if_there_is_time() -> None:
    first = spoken("Sixteen letters.", 100)
    later, soon = spoken("Then.", 100, 5000), spoken("Then.", 100, 600)
    (start, end, _), *_ = srt_cues(written(SrtWriter(), events_of([*first, *later])))
    assert (start, end) == (0, 1000)
    slow = CueRules(chars_per_second=8)
    (_, end, _), *_ = srt_cues(written(SrtWriter(slow), events_of([*first, *later])))
    assert end == 2000
    narrow = CueRules(20, 1)  # no room for both sentences
    (_, end, _), *_ = srt_cues(written(SrtWriter(narrow), events_of([*first, *soon])))
    assert end == 600


def test_a_sentence_too_fast_to_read_shares_its_cue_with_the_next_one() -> None:
    # 16 letters in 0.5 s are 32 a second; both sentences are 38 in 3.5 s.
    fast = spoken("Come right here!", 167)
    slow = spoken("And take all these books away.", 500, 501)
    ((start, end, text),) = srt_cues(written(SrtWriter(), events_of([*fast, *slow])))
    assert (start, text) == (0, "Come right here! And take\nall these books away.")
    assert end == 3501
    # Where silence follows, the sentence stays up into it.
    late = spoken("And take all these books away.", 500, 1200)
    cues = srt_cues(written(SrtWriter(), events_of([*fast, *late])))
    assert cues[0] == (0, 1000, "Come right here!")
    assert len(cues) == 2


def test_a_full_cue_ends_after_a_sentence_or_a_clause_of_it() -> None:
    words = spoken(
        "Out of the way! So I told him everything, and then he left us alone"
    )
    rules = CueRules(32, 2)
    texts = [text for *_, text in srt_cues(written(SrtWriter(rules), events_of(words)))]
    assert texts == [
        "Out of the way!",
        "So I told him everything,\nand then he left us alone",
    ]
    rules = CueRules(44, 1)
    texts = [text for *_, text in srt_cues(written(SrtWriter(rules), events_of(words)))]
    assert texts == [
        "Out of the way!",
        "So I told him everything,",
        "and then he left us alone",
    ]


JAPANESE = (
    "今日はちょっと早めに家を出てきょうとへ行ってきました。"
    "チョコレートとジュースをいっぱい買ってキャンプにしゅっぱつしましょう、"
    "「そうですね」とヴァイオリニストは言った。ファックスが、こわれちゃったんだって！"
)
CHINESE = (
    "我们今天下午三点在北京大学图书馆见面，然后一起去吃饭。“好的！”她说，（笑）“再见。”"
)


def pieces_of_time(text: str) -> list[Word]:
    pieces = pieces_of(text)
    return [Word(p, 120 * i, 120 * (i + 1), None, "") for i, p in enumerate(pieces)]


@pytest.mark.parametrize("text", [JAPANESE, CHINESE, JAPANESE * 3 + CHINESE])
@pytest.mark.parametrize("width", [14, 17, 20, 26, 42])
@pytest.mark.parametrize("n_lines", [1, 2])
def test_no_line_of_a_cue_begins_with_what_may_not_begin_one(
    text: str, width: int, n_lines: int
) -> None:
    writer = SrtWriter(CueRules(width, n_lines))
    cues = srt_cues(written(writer, events_of(pieces_of_time(text))))
    lines = [line for *_, cue in cues for line in cue.split("\n")]
    assert "".join(lines) == text
    for line in lines:
        assert line[0] not in "ぁぃぅぇぉっゃゅょァィゥェォッャュョー、。」！？，）”", (
            line
        )
        assert line[-1] not in "「（“", line
        assert columns(line) <= width


def test_lines_of_chinese_end_after_punctuation_where_that_costs_no_line() -> None:
    words = pieces_of_time("我们今天下午三点在图书馆见面，然后一起去吃饭吧")
    lines = ["".join(word.text for word in line) for line in wrap(words, 36)]
    assert lines == ["我们今天下午三点在图书馆见面，", "然后一起去吃饭吧"]


def test_a_pause_brings_out_the_cue_before_the_next_word() -> None:
    writer = SrtWriter()
    assert "".join(writer.feed(WordFinal(w, 600)) for w in spoken("so far")) == ""
    text = writer.feed(UtteranceEnd(0, 600, 1400))
    assert srt_cues(text) == [(0, 1000, "so far")]
    assert writer.end() == ""


def test_word_times_are_tags_within_their_cue() -> None:
    words = spoken("It is < 5.")
    text = written(VttWriter(has_word_times=True), events_of(words))
    assert text == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.200\n"
        "It <00:00:00.300>is <00:00:00.600>&lt; <00:00:00.900>5.\n\n"
    )


@given(word_lists())
@settings(max_examples=100)
def test_tags_increase_and_lie_within_their_cue(words: list[Word]) -> None:
    text = written(VttWriter(has_word_times=True), events_of(words))
    for block in re.findall(r"(\S+) --> (\S+)\n(.*?)\n\n", text, re.DOTALL):
        tags = [_ms(tag) for tag in re.findall(r"<([\d:.]+)>", block[2])]
        times = [_ms(block[0]), *tags, _ms(block[1])]
        assert times == sorted(set(times))


@given(word_lists())
@settings(max_examples=50)
def test_text_is_what_the_words_say(words: list[Word]) -> None:
    whole = "".join(word.lead + word.text for word in words)
    assert written(TxtWriter(), events_of(words)) == whole.lstrip() + "\n"


@given(word_lists())
@settings(max_examples=50)
def test_json_has_every_word_with_its_times(words: list[Word]) -> None:
    content = json.loads(written(JsonWriter({"file": "x.wav"}), events_of(words)))
    assert content["file"] == "x.wav"
    assert content["text"] == "".join(w.lead + w.text for w in words).lstrip()
    found = [word for segment in content["segments"] for word in segment["words"]]
    assert [(w["text"], w["start_ms"], w["end_ms"]) for w in found] == [
        (w.text, w.start_ms, w.end_ms) for w in words
    ]


EVERY_EVENT: list[Event] = [
    TokenDecoded(33, 0, 80, -0.25, (Alternative(33, "", -0.25),)),
    TextDelta("é", 160),
    WordFinal(Word("é", 40, 120, 0.75), 160),
    GuardActed("pad_run", 240),
    Recovered("decoder", 320),
    UtteranceEnd(40, 120, 920),
    Finished(1000, 13),
]


def test_every_event_is_one_line_of_jsonl_as_it_comes() -> None:
    writer = JsonLinesWriter({"file": "x.wav"}, has_tokens=True)
    lines = [writer.feed(event) for event in EVERY_EVENT]
    assert writer.end() == ""
    assert all(line.endswith("}\n") for line in lines)
    rows = [json.loads(row) for row in "".join(lines).splitlines()]
    assert [row["type"] for row in rows] == [
        *("stream", "token", "text_delta", "word"),
        *("guard", "recovered", "utterance_end", "finished"),
    ]
    assert rows[1]["alternatives"] == [{"token_id": 33, "text": "", "logprob": -0.25}]
    assert rows[3] == {
        "type": "word",
        "text": "é",
        "start_ms": 40,
        "end_ms": 120,
        "confidence": 0.75,
        "time_ms": 160,
    }
    assert JsonLinesWriter().feed(EVERY_EVENT[0]) == ""


def test_json_tells_what_guards_did_and_what_else_was_likely() -> None:
    content = json.loads(written(JsonWriter(), EVERY_EVENT))
    assert content["guards"] == [{"guard": "pad_run", "time_ms": 240}]
    assert content["recoveries"] == [{"cause": "decoder", "time_ms": 320}]
    assert content["alternatives"] == [[{"token_id": 33, "text": "", "logprob": -0.25}]]
    assert content["segments"][0]["words"][0]["confidence"] == 0.75


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_without_words_is_a_valid_file(name: str) -> None:
    text = written(make_writer(name), [Finished(0, 10)])
    expected = {"txt": "\n", "srt": "", "vtt": "WEBVTT\n\n"}
    if name in expected:
        assert text == expected[name]
    else:
        assert json.loads(text)["duration_ms"] == 0
    assert make_writer("vtt").end() == "WEBVTT\n\n"


def test_control_characters_do_not_reach_subtitles() -> None:
    text = written(
        make_writer("srt", FormatOptions()), events_of([Word("a\x00\x1bb", 0, 9)])
    )
    assert "a\ufffd\ufffdb\n" in text


def test_what_a_subtitle_writer_holds_does_not_grow() -> None:
    writer, held = SrtWriter(), list[int]()
    for i in range(3000):
        writer.feed(WordFinal(Word("word", i * 300, i * 300 + 250), i * 300))
        if i % 10 == 0:
            held.append(held_bytes(writer))
    assert max(held[30:]) < max(held[:30]) + 1000
