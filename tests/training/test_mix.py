"""Mixed weights lie between those they are made of, by their shares."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch: .[training]")

import torch
from safetensors.torch import load_file, save_file

from training.mix import WEIGHTS, mix


def test_a_mean_is_weighted_by_its_shares(tmp_path: Path) -> None:
    shares = {}
    for value, share in ((1.0, 1.0), (5.0, 3.0)):
        source = tmp_path / str(value)
        source.mkdir()
        save_file({"w": torch.full((2, 3), value).bfloat16()}, source / WEIGHTS)
        for name in ("params.json", "tekken.json"):
            (source / name).write_text(name)
        shares[source] = share
    mix(tmp_path / "mean", shares)
    (tensor,) = load_file(tmp_path / "mean" / WEIGHTS).values()
    assert tensor.dtype == torch.bfloat16
    assert tensor.tolist() == [[4.0] * 3] * 2
    assert (tmp_path / "mean" / "tekken.json").read_text() == "tekken.json"
