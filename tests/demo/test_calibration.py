"""The demo's calibration sound has no voice and no two words with the test's."""

import json
from itertools import pairwise

from tests.held_out import held_out
from voxmlx import demo
from voxmlx.audio.files import open_audio

SAID = json.loads((demo.CALIBRATION / "words.json").read_text(encoding="utf-8"))


def variant(voice: str) -> str:
    """What follows the language: espeak-en-us+f2 -> f2."""
    return voice.rpartition("+")[2].lower()


def test_no_voice_of_the_calibration_speaks_a_test_sentence() -> None:
    heard = {variant(sentence.voice) for sentence in held_out()}
    assert not heard & {variant(entry["voice"]) for entry in SAID.values()}


def test_no_two_words_in_a_row_are_in_a_row_in_a_test_sentence() -> None:
    held = {pair for sentence in held_out() for pair in pairwise(sentence.text.split())}
    phrases = [phrase for entry in SAID.values() for phrase in entry["words"]]
    assert len(phrases) > 50
    assert not held & {pair for text in phrases for pair in pairwise(text.split())}


def test_there_are_five_minutes_of_sound() -> None:
    seconds = 0.0
    for name in SAID:
        with open_audio(demo.CALIBRATION / name) as file:
            seconds += sum(len(piece) for piece in file.pieces()) / 16_000
    assert 290 < seconds < 400
