"""The spectrogram's own promises; parity with transformers is tested apart."""

import mlx.core as mx
import numpy as np

from voxmlx.config import AudioConfig
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


def test_a_window_is_hann_weighted_and_its_power_summed_by_the_filters() -> None:
    sound = np.random.default_rng(0).standard_normal(4000).astype(np.float32) * 0.1
    frames = frames_of(sound)
    hann = np.sin(np.pi * np.arange(400) / 400) ** 2
    angle = 2 * np.pi * np.outer(np.arange(400), np.arange(201)) / 400
    k = 9  # from sample 9 * 160 - 200 on
    window = sound[k * 160 - 200 : k * 160 + 200] * hann
    power = (window @ np.cos(angle)) ** 2 + (window @ np.sin(angle)) ** 2
    mel = np.log10(power @ mel_filter_bank(128, 201, 16_000))
    expected = (np.maximum(mel, 1.5 - 8) + 4) / 4
    np.testing.assert_allclose(frames[k], expected, rtol=0, atol=1e-6)


def test_a_spectrogram_is_rounded_to_the_dtype_asked_for() -> None:
    sound = np.random.default_rng(0).standard_normal((1, 4000)).astype(np.float32)
    mel = LogMel(CONFIG)
    exact = mel.step(sound, mel.make_state())
    for dtype in (mx.float16, mx.bfloat16):
        (got,) = mel.step_together([sound], [mel.make_state()], dtype)
        assert (got == exact.astype(dtype)).all().item()
