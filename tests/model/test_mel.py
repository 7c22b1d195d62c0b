"""The spectrogram's own promises; parity with transformers is tested apart."""

import mlx.core as mx
import numpy as np

from voxmlx.config import AudioConfig
from voxmlx.kernels.spectrum import (
    power_by_fft,
    spectrum_by_matmul,
    squared_magnitude,
)
from voxmlx.model.mel import LogMel, mel_filter_bank

CONFIG = AudioConfig(16_000, 12.5, 128, 160, 400, 1.5)


def frames_of(samples: np.ndarray) -> np.ndarray:
    mel = LogMel(CONFIG)
    return np.array(mel.step(mx.array(samples)[None], mel.make_state()))[0]


def test_silence_is_the_floor_exactly() -> None:
    frames = frames_of(np.zeros(1600, np.float32))
    np.testing.assert_allclose(frames, (1.5 - 8 + 4) / 4, rtol=0, atol=1e-7)


def test_an_audio_token_is_complete_once_its_lookahead_is_heard() -> None:
    lookahead = LogMel(CONFIG).lookahead
    assert lookahead == 40
    assert len(frames_of(np.zeros(1280 + lookahead, np.float32))) == 8
    assert len(frames_of(np.zeros(1280 + lookahead - 1, np.float32))) == 7


def test_a_tone_is_loudest_in_the_filter_around_it() -> None:
    time = np.arange(16_000) / 16_000
    bank = mel_filter_bank(128, 201, 16_000)
    for hz in (440.0, 1000.0, 3000.0, 7000.0):
        tone = (0.5 * np.sin(2 * np.pi * hz * time)).astype(np.float32)
        loudest = int(frames_of(tone)[50].argmax())
        heard = bank[:, loudest]
        low, high = np.nonzero(heard)[0][[0, -1]] * 40.0
        assert low - 40 <= hz <= high + 40


def test_every_filter_has_unit_area_in_hertz() -> None:
    fine = mel_filter_bank(128, 8_001, 16_000)
    np.testing.assert_allclose(fine.sum(axis=0) * (8000 / 8_000), 1.0, atol=1e-3)


def test_rows_of_a_batch_are_independent_streams() -> None:
    rng = np.random.default_rng(0)
    sound = rng.standard_normal((2, 3000)).astype(np.float32) * 0.1
    mel = LogMel(CONFIG)
    both = np.array(mel.step(mx.array(sound), mel.make_state(2)))
    for row in range(2):
        np.testing.assert_allclose(both[row], frames_of(sound[row]), atol=1e-5)


def test_both_ways_to_a_power_spectrum_agree() -> None:
    rng = np.random.default_rng(0)
    windows = mx.array(rng.standard_normal((2, 8, 400)).astype(np.float32))
    by_fft = np.array(power_by_fft(windows))
    by_product = np.array(squared_magnitude(spectrum_by_matmul(windows)))
    # float32's rounding over 400 terms of size one.
    np.testing.assert_allclose(by_product, by_fft, rtol=1e-4, atol=1e-3)
