"""What a draft adds to confirmed text: all that is new of it, and nothing twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted import vocabulary
from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.text.draft_text import DraftText, rest_of_draft
from voxmlx.text.tokenizer import TextStream, Tokenizer

PAD, WORD = STREAMING_PAD_ID, STREAMING_WORD_ID
PIECES = [" turn", " on", " the", " heat", "ing", " no", ".", " 今", "天", "は"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return vocabulary(*PIECES)


def token(tokenizer: Tokenizer, piece: str) -> int:
    for token_id in range(tokenizer.vocab_size):
        if tokenizer.piece(token_id) == piece.encode() and token_id > WORD:
            return token_id
    raise AssertionError(piece)


@pytest.mark.parametrize(
    ("draft", "confirmed", "rest"),
    [
        (" turn on the", " turn", " on the"),
        (" turn on the", " turn on", " the"),
        ("turn on", " Turn", " on"),
        (" turn on", "turn", " on"),
        (" heating now", " heat", "ing now"),
        (" heating now", " Heat", "ing now"),
        (" on. Now", " on", ". Now"),
        (" on the", ",", " on the"),
        (" on the", " ", "on the"),
        (" turn off the", " turn on", ""),
        (" turn", " turn on", ""),
        ("天気", "天", "気"),
        ("", " turn", ""),
    ],
)
def test_what_is_confirmed_goes_from_a_draft_without_ids(
    draft: str, confirmed: str, rest: str
) -> None:
    assert rest_of_draft(draft, confirmed) == rest


class Both:
    """A draft and what is confirmed, each told its ids one audio token at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = TextStream(tokenizer)
        self.draft = DraftText(tokenizer, 0)
        self.draft.push(-1)
        self.confirmed = ""
        self._n = 0

    def drafts(self, *pieces: str | int) -> None:
        for piece in pieces:
            self.draft.push(self._id(piece))

    def confirms(self, *pieces: str | int) -> None:
        for piece in pieces:
            token_id = self._id(piece)
            text = self._stream.push(token_id)
            self.draft.confirm(self._n, token_id, text)
            self.confirmed += text
            self._n += 1

    def _id(self, piece: str | int) -> int:
        return piece if isinstance(piece, int) else token(self._tokenizer, piece)

    @property
    def shown(self) -> str:
        return self.confirmed + self.draft.text


def test_the_draft_follows_what_is_confirmed(tokenizer: Tokenizer) -> None:
    both = Both(tokenizer)
    both.drafts(WORD, " turn", WORD, " on", WORD, " the")
    assert both.shown == "turn on the"
    both.confirms(WORD, " turn", WORD, " on")
    assert both.draft.text == " the"


def test_half_a_confirmed_word_leaves_its_other_half(tokenizer: Tokenizer) -> None:
    both = Both(tokenizer)
    both.drafts(WORD, " heat", "ing", WORD, " on")
    both.confirms(WORD, " heat")
    assert both.draft.text == "ing on"
    both.confirms("ing")
    assert both.draft.text == " on"


def test_another_word_takes_the_place_of_the_drafted_one(tokenizer: Tokenizer) -> None:
    both = Both(tokenizer)
    both.drafts(WORD, " the", PAD, PAD, PAD, WORD, " on")
    both.confirms(WORD, " turn")
    assert both.shown == "turn on"


def test_a_word_that_is_heard_a_little_later_is_not_shown_twice(
    tokenizer: Tokenizer,
) -> None:
    both = Both(tokenizer)
    both.drafts(WORD, " turn", PAD, PAD, WORD, " on", PAD)
    both.confirms(PAD, PAD, WORD, " turn")
    assert both.shown == "turn on"


def test_the_same_word_again_is_shown_again(tokenizer: Tokenizer) -> None:
    both = Both(tokenizer)
    both.drafts(WORD, " no", PAD, WORD, " no", PAD, WORD, " no")
    both.confirms(WORD, " no", PAD)
    assert both.shown == "no no no"


def test_a_drafted_word_that_nothing_confirms_goes(tokenizer: Tokenizer) -> None:
    both = Both(tokenizer)
    both.drafts(WORD, " on", *[PAD] * 12)
    both.confirms(*[PAD] * 12)
    assert both.shown == ""


def test_characters_without_spaces_follow_one_by_one(tokenizer: Tokenizer) -> None:
    both = Both(tokenizer)
    both.drafts(WORD, " 今", WORD, "天", WORD, "は")
    both.confirms(WORD, " 今")
    assert both.draft.text == "天は"


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.data())
def test_a_draft_without_a_fault_shows_all_it_has_heard(
    tokenizer: Tokenizer, pieces: list[str], data: st.DataObject
) -> None:
    ids: list[int] = []
    for piece in pieces:
        # Sub-words come together; words are at least two audio tokens apart.
        if piece.startswith(" "):
            ids += [PAD] * data.draw(st.integers(0, 4)) + [WORD]
        ids.append(token(tokenizer, piece))
    both = Both(tokenizer)
    n_ahead = data.draw(st.integers(1, 20))
    for i in range(len(ids)):
        both.drafts(ids[i])
        if i >= n_ahead:
            both.confirms(ids[i - n_ahead])
        stream = TextStream(tokenizer)
        heard = "".join(stream.push(token_id) for token_id in ids[: i + 1])
        assert both.shown == heard


def test_what_is_kept_of_a_draft_does_not_grow(tokenizer: Tokenizer) -> None:
    both = Both(tokenizer)
    rng = np.random.default_rng(0)
    for piece in rng.choice(PIECES, 3000):
        both.drafts(str(piece))
    assert len(both.draft.text) < 64 * 201
