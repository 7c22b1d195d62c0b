"""Features are those of the network, but for what is warped and hidden."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch: .[training]")

import torch

from training import features
from training.features import MASKED, Features
from training.mel import LogMel

N_SAMPLES = 96 * 1280


def sound(n_rows: int = 4) -> torch.Tensor:
    rng = np.random.default_rng(0)
    samples = 3000 * rng.standard_normal((n_rows, N_SAMPLES))
    return torch.from_numpy(samples.astype(np.int16))


def test_what_is_neither_warped_nor_hidden_is_the_log_mel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "AS_IT_IS_ODDS", 1.0)
    made = Features("cpu", 1)(sound())
    true = LogMel()(sound().float() / 32768)
    assert made.shape == true.shape == (4, 128, 768)
    hidden = made == MASKED
    assert 0.005 < hidden.float().mean() < 0.3
    assert torch.allclose(made[~hidden], true[~hidden], atol=1e-5)


def test_warping_moves_the_bands_and_not_the_moments() -> None:
    samples = sound()
    samples[:, : N_SAMPLES // 2] = 0
    made = Features("cpu", 2)(samples)
    quiet, loud = made[:, :, 300:380], made[:, :, 388:]
    assert quiet[quiet != MASKED].max() < loud[loud != MASKED].min()


def test_the_same_seed_makes_the_same_features() -> None:
    first, second = (Features("cpu", 7)(sound()) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, Features("cpu", 8)(sound()))
