"""What the benchmarks of drafts and of silence count."""

import numpy as np

from benchmarks.drafts import changes, first_times, measure
from benchmarks.launches import (
    DRAFT_WINDOW,
    full_size_network,
    traced_decoder,
    traced_pair,
)
from benchmarks.silence import minute_of_silence
from benchmarks.word_times import Marked
from voxmlx import Checkpoint


def test_a_word_is_shown_when_it_first_stands_in_its_place() -> None:
    shown = [(80.0, ["on"]), (160.0, ["on", "the"]), (240.0, ["in", "the", "heat"])]
    assert first_times(shown, ["in", "the", "heating"]) == {0: 240.0, 1: 160.0}


def test_a_drafted_word_that_becomes_another_is_counted_once() -> None:
    shown = [
        (80.0, ["turn", "of"], 1),
        (160.0, ["turn", "off", "the"], 1),
        (240.0, ["turn", "on", "the"], 1),
        (320.0, ["turn", "off", "the"], 3),
    ]
    assert changes(shown) == (2, 1)


def test_a_stream_is_measured_with_and_without_a_draft(
    tiny_checkpoint: Checkpoint,
) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    marks = [Marked("never", None, 500.0)]
    for draft_ms in (80, None):
        figures = measure(
            tiny_checkpoint, sound, marks, delay_ms=480, draft_delay_ms=draft_ms
        )
        assert figures.n_words == 0
        assert (figures.n_drafted > 0) == (draft_ms is not None)


def test_a_draft_reads_the_weights_no_second_time() -> None:
    network = full_size_network()
    alone, pair = traced_decoder(network), traced_pair(network, DRAFT_WINDOW)
    products = [kind for kind in alone.launches if "Matmul" in kind]
    assert sum(alone.launches[kind] for kind in products) > 100
    for kind in products:
        assert pair.launches[kind] == alone.launches[kind]
    assert pair.cache_bytes_moved == 0


def test_silence_is_counted_in_steps_and_passes(tiny_checkpoint: Checkpoint) -> None:
    # The tiny model never falls silent, so nothing is collected.
    counted = minute_of_silence(tiny_checkpoint, 80, 8, 0.8)
    assert counted["encoder_steps"] == counted["decoder_passes"] == 10
