"""The demo hears faint speech and strangers, and writes nothing for music.

Every test prints its figure: pytest -s -m "slow or not slow" tests/demo/test_real_voices.py
"""

import re
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile

from benchmarks.non_speech import NON_SPEECH
from tests.demo.test_words import SEEN, heard
from tests.held_out import held_out, one_stream

RATE = 16_000
DELAY_MS = 480
MUSIC_S = 150
# Spliced digits of speakers in no training: sounds and texts, where they are at hand.
DIGITS = Path(__file__).parents[2].parent / "shared" / "audio" / "digits"
SAME: dict[str, str] = {
    "oh": "zero",
    "o": "zero",
    "to": "two",
    "too": "two",
    "for": "four",
}


def report(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")


def test_speech_that_is_45_db_fainter_is_heard() -> None:
    sentences = tuple(s for kind in SEEN for s in held_out(kind))
    sound = one_stream(sentences) * np.float32(10 ** (-45 / 20))
    said = " ".join(sentence.text for sentence in sentences)
    rate = jiwer.wer(said, heard(sound, DELAY_MS))
    report(f"45 dB fainter: {100 * rate:.1f} % of {len(said.split())} words wrong")
    assert rate <= 0.10


@pytest.mark.slow
def test_an_hour_of_music_would_bring_out_less_than_a_word_a_minute() -> None:
    n_words = 0
    for seed in range(4):
        music = NON_SPEECH["music"](MUSIC_S * RATE, np.random.default_rng(seed))
        n_words += len(heard(music.astype(np.float32), DELAY_MS).split())
    per_hour = n_words * 3600 / (4 * MUSIC_S)
    report(f"music: {per_hour:.0f} words an hour")
    assert per_hour <= 60


@pytest.mark.slow
@pytest.mark.skipif(not DIGITS.is_dir(), reason=f"no recordings of digits in {DIGITS}")
def test_digits_of_real_speakers_never_heard_are_read() -> None:
    said: list[str] = []
    read: list[str] = []
    for path in sorted(DIGITS.glob("*.flac")):
        sound, rate = soundfile.read(path, dtype="float32")
        assert rate == RATE
        said.append(path.with_suffix(".txt").read_text("utf-8").strip())
        words: list[str] = re.findall(r"\w+", heard(sound, DELAY_MS))
        read.append(" ".join(SAME.get(word, word) for word in words))
    rate = jiwer.wer(said, read)
    report(f"digits: {100 * rate:.1f} % of {sum(len(s.split()) for s in said)} wrong")
    assert rate <= 0.20
