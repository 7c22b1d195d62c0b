"""Mean of several checkpoints' weights: python -m training.mix OUT DIR=SHARE..."""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "consolidated.safetensors"

__all__ = ["main", "mix"]


def mix(folder: Path, shares: dict[Path, float]) -> None:
    """Write the weighted mean of checkpoints of one shape, in bfloat16.

    Of a checkpoint and what it was trained to from there, the mean can keep what the
    one does well and the other learnt (Wortsman et al., WiSE-FT, 2022).
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(shares.values())
    mean: dict[str, torch.Tensor] = {}
    for source, share in shares.items():
        for name, tensor in load_file(source / WEIGHTS).items():
            part = tensor.float() * (share / total)
            mean[name] = mean[name] + part if name in mean else part
    rounded = {name: tensor.bfloat16() for name, tensor in mean.items()}
    save_file(rounded, folder / WEIGHTS)
    for name in ("params.json", "tekken.json"):
        shutil.copyfile(next(iter(shares)) / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("shares", nargs="+", metavar="DIR=SHARE")
    args = parser.parse_args()
    pairs = (one.rpartition("=") for one in args.shares)
    mix(args.folder, {Path(source): float(share) for source, _, share in pairs})


if __name__ == "__main__":
    main()
