"""Muon for the matrices, AdamW for the rest."""

from collections import defaultdict

import torch
from torch import nn

MOMENTUM = 0.95
WEIGHT_DECAY = 0.02

__all__ = ["MuonAdam"]


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Five Newton-Schulz steps towards U V^T over [K, rows, columns]."""
    # Half precision is slower than single on processors without units for it.
    has_units = matrices.is_cuda or torch.cpu._is_amx_tile_supported()
    x = matrices.bfloat16() if has_units else matrices
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):  # coefficients: Jordan et al., Muon (2024)
        gram = x @ x.mT
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * (gram @ gram)) @ x
    return (x.mT if is_tall else x).float()


class MuonAdam:
    """Steps all parameters; learning rates are given at each step."""

    def __init__(self, model: nn.Module) -> None:
        self._matrices: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        rest: list[nn.Parameter] = []
        for name, weight in model.named_parameters():
            is_matrix = weight.ndim == 2 and not name.startswith("emb")
            if is_matrix or name == "conv1.weight":
                self._matrices[tuple(weight.shape)].append(weight)
            else:
                rest.append(weight)
        self._momenta = {
            shape: torch.zeros(len(group), *shape, device=group[0].device)
            for shape, group in self._matrices.items()
        }
        self._adam = torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=0)

    @torch.no_grad()
    def step(self, muon_lr: float, adam_lr: float) -> None:
        for group in self._adam.param_groups:
            group["lr"] = adam_lr
        self._adam.step()
        for shape, weights in self._matrices.items():
            gradient = torch.stack([weight.grad for weight in weights])
            momentum = self._momenta[shape]
            momentum.lerp_(gradient, 1 - MOMENTUM)
            update = gradient.lerp(momentum, MOMENTUM).flatten(2)  # [K, rows, columns]
            n_rows, n_columns = update.shape[1:]
            scale = muon_lr * max(1.0, n_rows / n_columns) ** 0.5
            for weight, step in zip(weights, orthogonalise(update), strict=True):
                weight.mul_(1 - muon_lr * WEIGHT_DECAY)
                weight.add_(step.view_as(weight), alpha=-scale)

    def state_dict(self) -> dict[str, object]:
        """Without the matrices' momenta: twenty steps make them anew, 10 MB less."""
        return self._adam.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self._adam.load_state_dict(state)
