"""A larger model that computes exactly what a smaller, trained one does."""

import torch

from training.model import TinyConfig, TinyVoxtral

__all__ = ["grow"]

# New layers and units start out silent: what they add to the sum is zero.
_RESIDUALS = ("wo.weight", "wo.bias", "w2.weight", "w2.bias")
_NORMS = ("attention_norm.weight", "ffn_norm.weight", "enc_norm.weight")


@torch.no_grad()
def grow(small: TinyVoxtral, config: TinyConfig) -> TinyVoxtral:
    """`small`'s function in a model of `config`, which must be as large or larger.

    A wider sum holds zeros in its new places until training fills them. Its mean square
    is smaller for that, which the norms' weights make up for. Layers may be added to
    the encoder alone; new ones come last.
    """
    large = TinyVoxtral(config)
    old = small.state_dict()
    new = large.state_dict()
    narrower = (small.config.encoder_dim / config.encoder_dim) ** 0.5
    for name, weight in new.items():
        is_encoder = name.startswith(("conv", "enc"))
        if name not in old:  # of a new layer
            if name.endswith(_RESIDUALS):
                weight.zero_()
            continue
        source = old[name]
        if name == "proj.0.weight":  # [dim, 4 frames side by side]
            _place(weight.unflatten(1, (4, -1)), source.unflatten(1, (4, -1)))
            continue
        if name.endswith(_RESIDUALS) or name.startswith("conv1") or "bias" in name:
            weight.zero_()
        _place(weight, source)
        if is_encoder and name.endswith(_NORMS):
            weight[: len(source)] *= narrower
    large.load_state_dict(new)
    return large


def _place(weight: torch.Tensor, source: torch.Tensor) -> None:
    """Put `source` at the low end of every axis of `weight`."""
    weight[tuple(slice(n) for n in source.shape)] = source
