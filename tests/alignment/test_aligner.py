"""Words of a text get the times at which the demo model hears them."""

import random
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from tests.held_out import SEEN, Sentence, held_out, one_stream
from voxmlx import AlignedWord, Aligner, Checkpoint, TextError, align_file, demo, load
from voxmlx.alignment.units import text_units
from voxmlx.text.formats import render
from voxmlx.text.tokenizer import Tokenizer

LEAD = np.zeros(8000, np.float32)  # half a second, before and after a sentence
TEXT = " ".join((demo.DIRECTORY / "sample.txt").read_text("utf-8").split())


@cache
def demo_model() -> Checkpoint:
    return load("demo", "float32")


def words_of(
    sound: np.ndarray, text: str, sizes: Sequence[int] = (1 << 30,)
) -> list[AlignedWord]:
    aligner = Aligner(demo_model(), text)
    found: list[AlignedWord] = []
    start = i = 0
    while start < len(sound):
        size = sizes[i % len(sizes)]
        found += _words(aligner.push(sound[start : start + size]))
        start, i = start + size, i + 1
    return found + _words(aligner.finish())


def _words(found: Sequence[object]) -> list[AlignedWord]:
    return [one for one in found if isinstance(one, AlignedWord)]


def end_errors(sentence: Sentence) -> list[float]:
    """In ms, of the words that are found; late is positive."""
    sound = np.concatenate([LEAD, sentence.samples, LEAD])
    return [
        word.end_ms - 500 - sentence.word_ends_ms[word.index]
        for word in words_of(sound, sentence.text)
        if word.status == "aligned" and word.index is not None
    ]


def spoiled(sentence: Sentence, rng: random.Random) -> tuple[str, int | None, int]:
    """Return a text with a word too many or too few, which word, and where it is.

    The word is None where one is missing.
    """
    words = sentence.text.split()
    vocabulary = sorted({w for s in held_out() for w in s.text.split()})
    place = rng.randrange(len(words))
    if rng.random() < 0.5 or len(words) == 1:
        near = words[max(0, place - 1) : place + 1]
        extra = rng.choice([word for word in vocabulary if word not in near])
        return " ".join([*words[:place], extra, *words[place:]]), place, place
    return " ".join(words[:place] + words[place + 1 :]), None, place


def is_found(sentence: Sentence, rng: random.Random) -> tuple[bool, int]:
    """Return whether the spoiled word is marked, and how many others are."""
    text, extra, place = spoiled(sentence, rng)
    sound = np.concatenate([LEAD, sentence.samples, LEAD])
    marked = [w for w in words_of(sound, text) if w.status != "aligned"]
    if extra is not None:
        right = [w for w in marked if w.status == "missing" and w.index == extra]
    else:
        end_ms = sentence.word_ends_ms[place] + 500
        right = [
            w
            for w in marked
            if w.status == "unwritten" and abs(w.end_ms - end_ms) < 400
        ]
    return bool(right), len(marked) - len(right)


def test_the_sample_is_aligned_in_pieces_of_any_size() -> None:
    with_pieces = align_file(demo.SAMPLE, TEXT, model=demo_model())
    assert [w.text for w in with_pieces.words] == TEXT.split()
    assert with_pieces.missing == with_pieces.unwritten == ()
    assert with_pieces.transcript.text == TEXT
    heard = with_pieces.words
    assert [(w.text, w.end_ms) for w in heard[:3]] == [
        ("seven", 840),
        ("oh", 970),
        ("seven", 1400),
    ]
    assert all(w.confidence is not None and w.confidence > 0.5 for w in heard)
    assert "00:00:05,730 --> 00:00:08,360" in render(with_pieces.transcript, "srt")


def test_pieces_are_not_observable() -> None:
    sound = np.concatenate([LEAD, held_out("espeak")[0].samples, LEAD])
    text = held_out("espeak")[0].text
    whole = words_of(sound, text)
    for sizes in ((1280,), (977, 1, 0, 5003)):
        found = words_of(sound, text, sizes)
        assert [(w.text, w.start_ms, w.end_ms) for w in found] == [
            (w.text, w.start_ms, w.end_ms) for w in whole
        ]


def test_a_word_too_many_and_one_too_few_are_marked() -> None:
    sentences = held_out("flite")[:2]
    first, second = (s.text.split() for s in sentences)
    text = [*first[:1], "weather", *first[1:], *second[:1], *second[2:]]
    words = words_of(one_stream(sentences), " ".join(text))
    marked = [(w.text, w.status, w.index) for w in words if w.status != "aligned"]
    assert marked == [("weather", "missing", 1), (second[1], "unwritten", None)]
    times = [(w.start_ms, w.end_ms) for w in words]
    assert times == sorted(times)


def test_capitals_and_punctuation_of_the_text_are_kept() -> None:
    sentence = held_out("flite")[0]
    text = ", ".join(word.upper() for word in sentence.text.split()) + "!"
    words = words_of(np.concatenate([LEAD, sentence.samples, LEAD]), text)
    assert [w.text for w in words] == text.split()
    assert {w.status for w in words} == {"aligned"}


def test_a_text_is_cut_into_words_or_tokens() -> None:
    today = "今天".encode()
    pieces = [bytes([i]) for i in range(256)] + [b" o", b" on"]
    pieces += [today[:n] for n in range(2, 7)]
    tokenizer = Tokenizer(1000, pieces)
    units = text_units("On 今天好!", tokenizer)
    assert [(u.text, u.lead) for u in units] == [
        ("On", " "),
        ("今天", " "),
        ("好", ""),
        ("!", ""),
    ]
    assert (1257,) in units[0].spellings
    assert units[1].spellings == ((1262,),)
    assert [u.is_spaced for u in units] == [True, False, False, False]


@pytest.mark.parametrize("text", ["", " \n "])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(TextError, match="the text is empty"):
        Aligner(demo_model(), text)


@pytest.mark.slow
def test_words_of_marked_sentences_end_where_they_are_said() -> None:
    errors = [e for kind in SEEN for s in held_out(kind) for e in end_errors(s)]
    n_words = sum(len(s.text.split()) for kind in SEEN for s in held_out(kind))
    assert len(errors) >= 0.98 * n_words
    assert np.median(np.abs(errors)) <= 40
    assert np.percentile(np.abs(errors), 95) <= 120


@pytest.mark.slow
def test_spoiled_words_are_found_in_nine_texts_of_ten() -> None:
    rng = random.Random(0)
    sentences = [s for kind in SEEN for s in held_out(kind)]
    results = [is_found(sentences[i % len(sentences)], rng) for i in range(200)]
    assert sum(found for found, _ in results) >= 180
    assert sum(n for _, n in results) <= 20
