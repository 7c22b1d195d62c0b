"""An utterance ends with a pause in the sound and in the ids."""

import argparse
from collections.abc import Sequence

import numpy as np
import pytest

from tests.scripted import PAD, WORD
from tests.sounds import noise, silence
from voxmlx.audio.energy import EnergyDetector
from voxmlx.checkpoint import Checkpoint
from voxmlx.cli.word_arguments import add_word_arguments
from voxmlx.errors import RequestError, SessionError
from voxmlx.events import TokenDecoded, UtteranceEnd, Word
from voxmlx.serve.stream_options import StreamOptions, checked_options
from voxmlx.session import Session
from voxmlx.text.utterances import UtteranceTracker, check_pause


def ends(
    sound: np.ndarray, words: dict[int, Word], n_tokens: int, pause_ms: int = 800
) -> list[UtteranceEnd]:
    """Ends found when `words` are the only ids that are no blanks."""
    energy = EnergyDetector()
    energy.push(sound)
    tracker = UtteranceTracker(pause_ms, energy)
    found: list[UtteranceEnd] = []
    for index in range(n_tokens):
        token = TokenDecoded(WORD if index in words else PAD, index, 80 * (index + 1))
        end = tracker.push(token, [words[index]] if index in words else [])
        found += [end] if end is not None else []
    return found


def heard(*parts: tuple[str, float]) -> np.ndarray:
    makers = {"noise": noise, "silence": silence}
    return np.concatenate([makers[kind](int(16_000 * s)) for kind, s in parts])


SOUND = heard(("silence", 0.48), ("noise", 0.4), ("silence", 4))


@pytest.mark.parametrize("pause_ms", [-1, 0, 1, 239, 10_001])
def test_a_pause_that_no_stream_can_have_is_refused_everywhere(
    tiny_checkpoint: Checkpoint, pause_ms: int
) -> None:
    with pytest.raises(ValueError, match=f"pause of {pause_ms} ms, expected 240 to"):
        check_pause(pause_ms)
    with pytest.raises(SessionError, match="expected 240 to 10000"):
        Session(tiny_checkpoint, pause_ms=pause_ms)
    with pytest.raises(RequestError, match="expected 240 to 10000"):
        checked_options(StreamOptions(pause_ms=pause_ms))
    parser = argparse.ArgumentParser()
    add_word_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--pause={pause_ms}"])


@pytest.mark.parametrize("pause_ms", [240, 10_000])
def test_the_shortest_and_the_longest_pause_are_accepted(
    tiny_checkpoint: Checkpoint, pause_ms: int
) -> None:
    Session(tiny_checkpoint, pause_ms=pause_ms)
    checked_options(StreamOptions(pause_ms=pause_ms))
    parser = argparse.ArgumentParser()
    add_word_arguments(parser)
    assert parser.parse_args([f"--pause={pause_ms}"]).pause == pause_ms


WORDS = {10: Word("one", 480, 840)}


def test_a_pause_ends_an_utterance_once() -> None:
    assert ends(SOUND, WORDS, 60) == [UtteranceEnd(480, 840, 1680)]
    assert ends(SOUND, WORDS, 60, pause_ms=400) == [UtteranceEnd(480, 840, 1280)]


def test_sound_that_goes_on_puts_the_end_off() -> None:
    sound = heard(("silence", 0.48), ("noise", 1.0), ("silence", 4))
    assert ends(sound, WORDS, 60) == [UtteranceEnd(480, 840, 2320)]


def test_blanks_alone_end_it_in_steady_noise() -> None:
    sound = noise(16_000 * 8)
    (end,) = ends(sound, WORDS, 90)
    assert end.time_ms == 880 + 3 * 800


def test_without_words_there_is_no_utterance() -> None:
    assert ends(SOUND, {}, 60) == []


def test_words_without_a_pause_are_one_utterance() -> None:
    words = {i: Word("w", 80 * i, 80 * i + 60) for i in range(10, 60, 5)}
    (end,) = ends(silence(16_000 * 8), words, 90)
    assert (end.start_ms, end.end_ms) == (800, 80 * 55 + 60)


def test_the_end_of_the_stream_ends_it() -> None:
    tracker = UtteranceTracker(800, EnergyDetector())
    words: Sequence[Word] = [Word("late", 100, 900)]
    assert tracker.flush(words, 950) == UtteranceEnd(100, 900, 950)
    assert tracker.flush([], 950) is None
