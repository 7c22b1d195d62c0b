"""Words come out of the token stream whole, in order, and with their times."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.held import held_bytes
from tests.sounds import noise, silence
from voxmlx.audio.energy import EnergyDetector
from voxmlx.events import TokenDecoded, Word
from voxmlx.text.tokenizer import TextStream, Tokenizer
from voxmlx.text.words import (
    END_OFFSET_MS,
    SETTLE_TOKENS,
    WordAssembler,
    changes,
    pieces_of,
)

PAD, WORD = 32, 33
BYTES = Tokenizer(1000, [bytes([value]) for value in range(256)])

# Scripts with and without spaces, emoji of several characters, marks, white space
# that is none of the ASCII ones, and what is no letter.
TEXTS = st.lists(
    st.sampled_from(
        [
            *("a", " b", " the", " naïve", ",", " 5", "%", " ", "\n", "\u00a0", "\t"),
            *(
                "你",
                "好世界",
                "。",
                " 你",
                "「",
                "日本語の",
                "キー",
                "ไทย",
                "เก่า",
                "가",
            ),
            *(
                "مرحبا",
                " بالعالم",
                "🙂",
                " 👩‍🚀",
                "🏳️‍🌈",
                "e\u0301",
                "\u2028",
                "\ufeff",
                "$",
            ),
        ]
    ),
    max_size=20,
)


def ids_of(text: str) -> list[int]:
    return [1000 + value for value in text.encode()]


# A stream of markers, blanks and text cut anywhere, characters included.
STREAMS = st.lists(
    st.one_of(
        st.just([PAD]),
        st.just([WORD]),
        st.just([PAD] * SETTLE_TOKENS),
        TEXTS.map(lambda texts: ids_of("".join(texts))),
        st.lists(st.integers(1000, 1255), max_size=4),
    ),
    max_size=40,
).map(lambda parts: [token_id for part in parts for token_id in part])


def words_of(
    ids: Sequence[int],
    sound: EnergyDetector | None = None,
    logprobs: Sequence[float] | None = None,
    duration_ms: int = 10**9,
) -> list[Word]:
    assembler, text = WordAssembler(sound), TextStream(BYTES)
    words: list[Word] = []
    for index, token_id in enumerate(ids):
        token = TokenDecoded(
            token_id, index, 80 * (index + 1), logprobs[index] if logprobs else None
        )
        words += assembler.push(token, text.push(token_id))
    return words + assembler.flush(text.flush(), duration_ms)


def texts(words: Sequence[Word]) -> list[str]:
    return [word.text for word in words]


def joined(words: Sequence[Word]) -> str:
    return "".join(word.lead + word.text for word in words)


@given(STREAMS)
@settings(max_examples=100, deadline=None)
def test_words_joined_are_the_text(ids: list[int]) -> None:
    assert joined(words_of(ids)) == BYTES.decode(ids).rstrip()


@given(STREAMS, st.integers(0, 20_000))
@settings(max_examples=100, deadline=None)
def test_words_hold_no_white_space_and_their_times_never_decrease(
    ids: list[int], duration_ms: int
) -> None:
    # A stream's ids are about its sound and what follows it for 0.8 s.
    words = words_of(ids, duration_ms=max(duration_ms, 80 * len(ids) - 800))
    assert all(word.text and not any(map(str.isspace, word.text)) for word in words)
    assert all(word.lead == "" or word.lead.isspace() for word in words)
    times = [time for word in words for time in (word.start_ms, word.end_ms)]
    assert times == sorted(times)
    assert all(time >= 0 for time in times)


@given(TEXTS)
@settings(max_examples=100, deadline=None)
def test_pieces_joined_are_the_text_and_marks_never_begin_one(parts: list[str]) -> None:
    text = "".join("".join(parts).split())
    pieces = pieces_of(text)
    assert "".join(pieces) == text
    assert all(piece[0] not in "\u0301\u0e48\u200d,。" for piece in pieces[1:])


def test_a_word_ends_at_its_marker_and_not_where_its_text_comes() -> None:
    ids = [PAD] * 9 + [WORD, *ids_of(" hello"), *[PAD] * 5, WORD, *ids_of(" you")]
    hello, you = words_of(ids)
    assert (hello.text, hello.end_ms) == ("hello", 10 * 80 + END_OFFSET_MS)
    assert (you.text, you.end_ms) == ("you", 22 * 80 + END_OFFSET_MS)
    assert hello.end_ms <= you.start_ms


def test_words_that_share_a_marker_share_the_time_since_the_one_before() -> None:
    ids = [WORD, *ids_of(" a"), WORD, *ids_of(" b c")]
    assert [word.end_ms for word in words_of(ids)] == [40, 130, 250]


@pytest.mark.parametrize("n_pad", [0, 1, SETTLE_TOKENS - 1])
def test_text_without_a_space_goes_on_with_the_word(n_pad: int) -> None:
    ids = [WORD, *ids_of(" twenty"), *[PAD] * n_pad, WORD, *ids_of("-one, two")]
    assert texts(words_of(ids)) == ["twenty-one,", "two"]


def test_a_word_is_final_once_blanks_follow_or_the_next_begins() -> None:
    assembler = WordAssembler()

    def push(index: int, token_id: int, text: str = "") -> list[str]:
        return texts(assembler.push(TokenDecoded(token_id, index, 80 * index), text))

    assert push(0, WORD) == push(1, 1000, " one") == push(2, WORD) == []
    assert push(3, 1001, " two") == ["one"]
    assert push(4, PAD) == push(5, PAD) == []
    assert push(6, PAD) == ["two"]
    assert push(7, PAD) == push(8, PAD) == []


def test_languages_without_spaces_are_cut_by_character_with_times() -> None:
    ids = [*[PAD] * 9, WORD, *ids_of("你好,世界。")]
    words = words_of(ids)
    assert texts(words) == ["你", "好,", "世", "界。"]
    assert words[-1].end_ms == 800 + END_OFFSET_MS
    assert len({word.start_ms for word in words}) == 4
    # A marker between two characters is no space, and dates the second one.
    first, second = words_of([WORD, *ids_of("你"), *[PAD] * 2, WORD, *ids_of("好")])
    assert (first.end_ms, second.end_ms) == (40, 7 * 80 - 40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("เก่ามาก", ["เก่า", "มา", "ก"]),
        ("「東京」タワー", ["「東", "京」", "タ", "ワー"]),
        ("GPU를", ["GPU를"]),
        ("第5章", ["第", "5", "章"]),
        ("OK吗？", ["OK", "吗？"]),
        ("مرحبا،", ["مرحبا،"]),
        ("👩‍🚀🏳️‍🌈", ["👩‍🚀🏳️‍🌈"]),
    ],
)
def test_text_is_cut_where_its_script_has_no_spaces(
    text: str, expected: list[str]
) -> None:
    assert pieces_of(text) == expected


def test_confidence_is_the_geometric_mean_of_the_tokens_of_the_text() -> None:
    ids = [WORD, *ids_of(" ab"), PAD, WORD, *ids_of(" é")]
    logprobs = [-9.0, *map(math.log, (0.5, 0.5, 0.125)), -9.0, -9.0, -1.0, -2.0, -3.0]
    first, second = words_of(ids, logprobs=logprobs)
    # The space is a token that gives a word no text.
    assert first.confidence == pytest.approx(0.25)
    assert second.confidence == pytest.approx(math.exp(-3))
    assert [word.confidence for word in words_of(ids)] == [None, None]


def test_a_token_counts_once_however_many_characters_it_has() -> None:
    assembler = WordAssembler(None)
    assembler.push(TokenDecoded(WORD, 0, 80, -9.0), "")
    assembler.push(TokenDecoded(1300, 1, 160, -1.0), " abcd")
    assembler.push(TokenDecoded(1301, 2, 240, -3.0), "e")
    (word,) = assembler.flush("", 240)
    assert word.text == "abcde"
    assert word.confidence == pytest.approx(math.exp(-2))


def test_a_word_starts_where_its_sound_does() -> None:
    detector = EnergyDetector()
    quiet = np.concatenate([silence(16_000), noise(8000), silence(4800), noise(9600)])
    detector.push(np.concatenate([quiet, silence(16_000)]))
    # Sound from 1.0 to 1.5 s and from 1.8 to 2.4 s; markers at 1.52 and 2.4 s.
    ids = [*[PAD] * 18, WORD, *ids_of(" a"), *[PAD] * 8, WORD, *ids_of(" b")]
    first, second = words_of(ids, detector)
    assert (first.start_ms, first.end_ms) == (1000, 1480)
    assert (second.start_ms, second.end_ms) == (1800, 2360)


def test_no_word_ends_after_the_sound() -> None:
    (word,) = words_of([*[PAD] * 10, WORD, *ids_of(" late")], duration_ms=300)
    assert (word.start_ms, word.end_ms) == (0, 300)


def test_text_without_end_is_called_words_before_it_piles_up() -> None:
    assembler, n_words, held = WordAssembler(), 0, list[int]()
    for index in range(9000):
        text = "x" if index < 2500 else " y" if index < 5000 else "\n"
        n_words += len(assembler.push(TokenDecoded(1000, index, 80 * index), text))
        held.append(held_bytes(assembler))
    # 16 words of 200 characters, and the white space before the next.
    assert max(held) < 16 * (200 + 400)
    assert n_words > 2500


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("", "ab", [0, 1, 2]),
        ("ab", "", [2]),
        ("kitten", "sitting", [6, 6, 5, 4, 3, 3, 2, 3]),
        (["turn", "on"], ["turn", "it", "on"], [2, 1, 1, 1]),
    ],
)
def test_changes_are_counted_for_each_beginning(
    one: Sequence[str], other: Sequence[str], expected: list[int]
) -> None:
    assert changes(one, other) == expected
