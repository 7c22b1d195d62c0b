"""A training row writes the words that its sound holds, and nothing for the rest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch: .[training]")
pytest.importorskip("scipy", reason="training needs scipy: .[training]")
pytest.importorskip("soxr", reason="training needs soxr: .[training]")

from training import splicing, streams
from training.dataset import Dataset, Utterance, write_dataset
from training.domain import DIGITS
from training.streams import IGNORED, StreamMaker
from training.targets import PAD_ID, WORD_ID

N_TOKENS = 192
BURST = 4000  # samples
WORDS: list[str] = [*DIGITS]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return one voice whose every digit is a burst of noise after 30 ms."""
    folder: Path = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(0)

    def burst(word: str) -> Utterance:
        samples = np.zeros(480 + BURST + 800, np.float32)
        samples[480 : 480 + BURST] = 0.3 * rng.standard_normal(BURST)
        return Utterance(samples, (word,), (480 + BURST,), "one")

    write_dataset(folder, map(burst, WORDS))
    return Dataset(folder)


def encode_word(word: str) -> tuple[int, ...]:
    return (1000 + WORDS.index(word),)


def rows(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch, n_rows: int = 2, **odds: float
) -> list[list[int]]:
    """Return the targets of rows that are drawn with other odds."""
    monkeypatch.setattr(streams, "ODDS", replace(streams.ODDS, **odds))
    maker = StreamMaker([(1.0, digits)], encode_word, N_TOKENS, 1)
    return maker.batch(n_rows).targets.tolist()


def test_rows_of_music_and_noise_alone_are_due_no_word(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for targets in rows(digits, monkeypatch, non_speech=1.0):
        assert set(targets) <= {IGNORED, PAD_ID}
        assert targets.count(PAD_ID) > N_TOKENS / 2


def test_spliced_digits_are_each_due_a_word(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_words = 0
    for targets in rows(digits, monkeypatch, spliced=1.0, non_speech=0.0):
        spoken = [i for i in targets if i not in (IGNORED, PAD_ID, WORD_ID)]
        assert all(1000 <= i < 1010 for i in spoken)
        n_words += len(spoken)
    assert n_words > 2 * 5


def test_a_spliced_word_is_due_where_its_sound_ends(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = StreamMaker([(1.0, digits)], encode_word, N_TOKENS, 2)
    monkeypatch.setattr(streams, "ODDS", replace(streams.ODDS, spliced=1.0))
    for _ in range(20):
        item = maker.utterance()
        loud = np.abs(item.samples) > 0.02
        assert list(item.word_ends) == sorted(item.word_ends)
        assert len(item.words) == len(item.word_ends)
        for end in item.word_ends:
            assert loud[end - 400 : end].mean() > 0.8
        last = int(np.nonzero(loud)[0][-1])
        assert abs(last - item.word_ends[-1]) < 16  # a millisecond


def test_a_gated_word_keeps_what_is_loud() -> None:
    rng = np.random.default_rng(3)
    weak = 0.003 * rng.standard_normal(1600)
    loud = 0.3 * rng.standard_normal(3200)
    sound = np.concatenate([weak, loud, weak]).astype(np.float32)
    first, end = splicing.gate(sound, -20)
    assert abs(first - 1600) <= 80
    assert abs(end - 4800) <= 80
    assert splicing.gate(sound, -60) == (0, len(sound))


def test_gated_digits_end_where_their_sound_does(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splicing, "GATED_ODDS", 1.0)
    rng = np.random.default_rng(4)
    for _ in range(20):
        item = splicing.Splicer(digits).splice(rng)
        for end in item.word_ends:
            assert np.abs(item.samples[end - 400 : end]).max() > 0.02
