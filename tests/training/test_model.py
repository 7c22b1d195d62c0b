"""The trainer's network attends as torch does, and step by step as all at once."""

import pytest

pytest.importorskip("torch", reason="training needs torch: .[training]")

import torch
from torch.nn import functional as F

from training.model import LayerCache, TinyConfig, TinyVoxtral, windowed_attention


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(6, 6), (8, 2)])
@pytest.mark.parametrize("n_positions", [1, 16, 33, 100])
def test_attention_is_torchs_with_a_window(
    n_heads: int, n_kv_heads: int, n_positions: int
) -> None:
    window = 16
    generator = torch.Generator().manual_seed(3)
    q, k, v = (
        torch.randn(2, n_positions, heads, 32, generator=generator)
        for heads in (n_heads, n_kv_heads, n_kv_heads)
    )
    distance = torch.arange(n_positions)[:, None] - torch.arange(n_positions)
    expected = F.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)),
        attn_mask=(distance >= 0) & (distance < window),
        enable_gqa=True,
    ).transpose(1, 2)
    torch.testing.assert_close(windowed_attention(q, k, v, window), expected)


def test_decoding_step_by_step_gives_the_logits_of_one_pass() -> None:
    torch.manual_seed(4)
    model = TinyVoxtral(TinyConfig(vocab_size=1100, sliding_window=8)).eval()
    audio = torch.randn(2, 30, model.config.dim)
    token_ids = torch.randint(0, 1100, (2, 30))
    t_cond = model.t_cond(torch.tensor([2, 6]))
    caches = [LayerCache() for _ in model.layers]
    with torch.no_grad():
        whole = model.decode(audio, token_ids, t_cond)
        steps = [
            model.decode(audio[:, i : i + 1], token_ids[:, i : i + 1], t_cond, caches)
            for i in range(30)
        ]
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-4, rtol=0)
