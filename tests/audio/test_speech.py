"""Speech is told by band, duration and modulation, not by level."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.non_speech import NON_SPEECH
from tests.held import held_bytes
from tests.held_out import SEEN, held_out, one_stream
from tests.sounds import noise, silence, speech_like
from voxmlx.audio.speech import SpeechDetector

TOKEN = 1280


def decisions(sound: np.ndarray, step: int = TOKEN) -> list[bool]:
    """Whether there was speech before the end of every 80 ms."""
    detector = SpeechDetector()
    found: list[bool] = []
    for start in range(0, len(sound), step):
        detector.push(sound[start : start + step])
        first, last = start // TOKEN, min(start + step, len(sound)) // TOKEN
        found += [detector.is_speech(80 * (i + 1)) for i in range(first, last)]
    return found


@pytest.mark.parametrize("name", ["clicks", "white noise", "pink noise", "hum"])
@pytest.mark.parametrize("seed", range(3))
def test_loud_sound_that_nobody_speaks_in_is_no_speech(name: str, seed: int) -> None:
    sound = NON_SPEECH[name](16_000 * 60, np.random.default_rng(seed))
    assert np.mean(decisions(sound)) < 0.05
    assert np.mean(decisions(np.concatenate([silence(16_000), sound]))) < 0.15


@pytest.mark.parametrize("kind", SEEN)
@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_sentences_are_speech(kind: str, gain: float) -> None:
    sound = one_stream(held_out(kind)[:4])
    assert np.mean(decisions(sound * np.float32(gain))[12:]) > 0.9
    hiss = noise(len(sound), seed=3, level=0.003)
    assert np.mean(decisions(sound + hiss)[12:]) > 0.9


def test_a_syllable_after_a_pause_is_speech_for_two_and_a_half_seconds() -> None:
    sound = [silence(16_000), noise(1600, level=0.1), silence(16_000 * 4)]
    found = decisions(np.concatenate(sound))
    first, n = found.index(True), sum(found)
    assert first == 13
    assert n * 80 == pytest.approx(2500, abs=160)
    shorter = [silence(16_000), noise(480, level=0.1), silence(16_000 * 4)]
    assert not any(decisions(np.concatenate(shorter)))


def test_a_steady_sound_is_speech_for_no_longer_than_a_breath() -> None:
    sound = np.concatenate([silence(16_000), noise(16_000 * 60, level=0.1)])
    assert 2000 < sum(decisions(sound)) * 80 < 7000


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=12), st.integers(0, 99))
def test_decisions_do_not_depend_on_pieces(sizes: list[int], seed: int) -> None:
    sound = speech_like(sum(sizes), seed=seed)
    whole, ragged = SpeechDetector(), SpeechDetector()
    whole.push(sound)
    for piece in np.split(sound, np.cumsum(sizes)[:-1]):
        ragged.push(piece)
    ends = range(0, len(sound) // 16 + 80, 80)
    assert [*map(ragged.is_speech, ends)] == [*map(whole.is_speech, ends)]


def test_nothing_grows_with_the_stream() -> None:
    detector = SpeechDetector()
    sizes: list[int] = []
    for i in range(60):
        detector.push(speech_like(16_000, seed=i))
        sizes.append(held_bytes(detector))
    assert max(sizes[30:]) <= max(sizes[:30]) + 100
    assert not detector.is_speech(0)
