"""A grown model says what the small one says, and can learn in its new places."""

import pytest

pytest.importorskip("torch", reason="training needs torch: .[training]")

import torch

from training.grow import grow
from training.model import TinyConfig, TinyVoxtral

SMALL = TinyConfig(
    encoder_dim=64,
    encoder_n_layers=2,
    encoder_hidden_dim=96,
    hidden_dim=128,
    n_layers=2,
    vocab_size=1100,
)
LARGE = TinyConfig(
    encoder_dim=96,
    encoder_n_layers=3,
    encoder_hidden_dim=160,
    hidden_dim=144,
    n_layers=2,
    vocab_size=1100,
)


def small_model() -> TinyVoxtral:
    torch.manual_seed(1)
    model = TinyVoxtral(SMALL)
    with torch.no_grad():
        for weight in model.parameters():  # biases and norms too
            weight += 0.05 * torch.randn_like(weight)
    return model


def logits(model: TinyVoxtral) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    log_mel = torch.randn(2, 128, 8 * 80, generator=generator)
    token_ids = torch.randint(0, 1100, (2, 80), generator=generator)
    t_cond = model.t_cond(torch.tensor([1, 30]))
    return model.decode(model.encode(log_mel), token_ids, t_cond)


def test_a_grown_model_computes_what_the_small_one_does() -> None:
    small = small_model()
    with torch.no_grad():
        before, after = logits(small), logits(grow(small, LARGE))
    # The norms' epsilon of 1e-5 weighs half as much again beside a smaller mean square.
    torch.testing.assert_close(after, before, atol=1e-3, rtol=0)


def test_every_new_weight_of_a_grown_model_can_learn() -> None:
    grown = grow(small_model(), LARGE)
    logits(grown).square().sum().backward()
    silent = []
    for name, weight in grown.named_parameters():
        assert weight.grad is not None
        # Rows of the embedding that are not looked up still get the output's gradient.
        if not weight.grad.any():
            silent.append(name)
    # What feeds a new layer's zero sum waits for that sum to move, one step.
    layer = f"enc.{SMALL.encoder_n_layers}."
    assert all(name.startswith(layer) for name in silent)
    assert any(
        weight.grad is not None and bool(weight.grad.any())
        for name, weight in grown.named_parameters()
        if name.startswith(layer)
    )
