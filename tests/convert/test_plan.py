"""The plan's figures, counted again from the files that it leads to."""

import itertools
import re
from collections import defaultdict
from math import prod
from pathlib import Path

import numpy as np
import pytest

from benchmarks.full_size_checkpoint import FULL_SIZE
from convert.__main__ import convert
from convert.disk import amount
from convert.plan import make_plan
from tests.convert.directories import MODEL, read_tensors
from tests.convert.interrupted import SHARD_BYTES
from voxmlx.config import ModelConfig
from voxmlx.layouts import model_modules, open_model
from voxmlx.layouts.recipes import RECIPES

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("shard_bytes", [1, 20_000, SHARD_BYTES, 10**9])
def test_a_shard_is_as_full_as_whole_modules_allow_and_never_fuller(
    shard_bytes: int, source: Path
) -> None:
    plan = make_plan(
        open_model(source), RECIPES["q4"], "bfloat16", "x", "1", shard_bytes
    )
    sizes: list[dict[str, int]] = []
    for shard in plan.shards:
        by_module: dict[str, int] = defaultdict(int)
        for tensor in shard.tensors:
            by_module[tensor.module.path] += tensor.n_bytes
        sizes.append(by_module)
    for held in sizes:
        assert len(held) == 1 or sum(held.values()) <= shard_bytes
    for held, following in itertools.pairwise(sizes):
        next_module = next(iter(following.values()))
        assert sum(held.values()) + next_module > shard_bytes
    assert sum(len(held) for held in sizes) == len(plan.files.modules)


@pytest.mark.parametrize("recipe", ["bf16", "q4", "q4-mixed", "mxfp8"])
def test_the_figures_of_the_card_are_those_of_the_files(
    recipe: str, source: Path, tmp_path: Path
) -> None:
    plan = convert(str(source), tmp_path / "ours", recipe=recipe)
    tensors = {
        name: array
        for path in (tmp_path / "ours").glob("model-*.safetensors")
        for name, array in read_tensors(path).items()
    }
    n_bytes = sum(array.nbytes for array in tensors.values())
    n_weights = sum(int(np.prod(array.shape)) for array in MODEL.tensors().values())
    assert any(name.endswith(".bias") for name in tensors)
    assert plan.n_weights == n_weights
    assert plan.bits_per_weight == 8 * n_bytes / n_weights
    of_delay = sum(array.nbytes for name, array in tensors.items() if ".ada." in name)
    assert of_delay > 0
    assert plan.bytes_per_audio_token == n_bytes - of_delay
    card = (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")
    assert f"| bits per weight | {8 * n_bytes / n_weights:.3f} |" in card
    assert f"(80 ms) | {amount(n_bytes - of_delay)} |" in card


def test_the_guides_sizes_follow_from_the_full_models_shapes() -> None:
    guide = (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")
    modules = list(model_modules(ModelConfig.from_params(FULL_SIZE.params())))
    said: dict[str, tuple[float, float]] = {}
    for line in re.findall(r"^\| `.*GB \|.*$", guide, re.MULTILINE):
        _, first, size, bits, *_ = line.split("|")
        names = re.findall(r"`([\w-]+)`", first)
        figures = ([float(n) for n in re.findall(r"[\d.]+", x)] for x in (size, bits))
        gigabytes, per_weight = (x * len(names) if len(x) == 1 else x for x in figures)
        said |= dict(zip(names, zip(gigabytes, per_weight, strict=True), strict=True))
    assert said.keys() == RECIPES.keys() - {"keep"}
    for name, figures in said.items():
        n_bits = n_weights = 0.0
        for module in modules:
            n = prod(module.shape)
            n_others = module.shape[0] if module.has_bias else 0
            precision = RECIPES[name].precision(module)
            n_bits += 16 * n_others + n * (precision.stored_bits if precision else 16)
            n_weights += n + n_others
        gigabytes, per_weight = n_bits / 8e9, n_bits / n_weights
        assert figures == (round(gigabytes, 1), round(per_weight, 1)), name
