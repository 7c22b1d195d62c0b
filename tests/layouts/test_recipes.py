"""Recipes are ordered rules, and packed products stay whole."""

import re
from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from benchmarks.held_out import write_held_out
from convert.quality import read_sounds
from convert.sensitivity import GROUPS, SensitivityRow, sensitivities, wanted_bits
from tests.convert.directories import MODEL
from tests.tiny import TinyModel
from voxmlx import demo, load
from voxmlx.config import ModelConfig
from voxmlx.kernels import kernel_switches
from voxmlx.kernels.switches import NUMPY
from voxmlx.layouts import Module, model_modules, packed_path
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.recipes import RECIPES, Recipe, Rule

MODULES = list(model_modules(ModelConfig.from_params(MODEL.params())))
RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "sensitivity.md"
ODD_MODULES = list(model_modules(ModelConfig.from_params(TinyModel().params())))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("modules", [MODULES, ODD_MODULES])
def test_the_parts_of_one_product_have_one_precision(
    name: str, modules: list[Module]
) -> None:
    parts: dict[str, set[Precision | None]] = defaultdict(set)
    for module in modules:
        parts[packed_path(module.path)].add(RECIPES[name].precision(module))
    assert {len(kinds) for kinds in parts.values()} == {1}


@pytest.mark.parametrize(("name", "bits"), [("q4", 4), ("q6", 6), ("q8", 8)])
def test_a_uniform_recipe_quantizes_every_matrix_of_a_step(
    name: str, bits: int
) -> None:
    for module in MODULES:
        expected = module.can_be_quantized and ".ada." not in module.path
        found = RECIPES[name].precision(module)
        assert found == (Precision(bits, 64) if expected else None), module.path


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_recipe_of_halves_quantizes_nothing(name: str) -> None:
    assert all(RECIPES[name].precision(module) is None for module in MODULES)


def test_the_first_rule_that_matches_decides() -> None:
    rules = (Rule("decoder.*", None), Rule("*", Precision(4, 64)))
    recipe = Recipe("test", "", rules)
    found = {module.path: recipe.precision(module) for module in MODULES}
    assert found["decoder.embedding"] is None
    assert found["adapter.linear1"] == Precision(4, 64)


def test_rows_of_no_whole_number_of_groups_are_left_alone() -> None:
    found = {m.path: RECIPES["q4"].precision(m) for m in ODD_MODULES}
    assert found["encoder.layers.0.attention.o_proj"] is None  # rows of 96
    assert found["encoder.layers.0.attention.q_proj"] == Precision(4, 64)


def bits_of_groups(name: str) -> dict[str, int]:
    bits: dict[str, set[int]] = defaultdict(set)
    for module in MODULES:
        precision = RECIPES[name].precision(module)
        for group in GROUPS:
            if fnmatchcase(packed_path(module.path), group):
                assert precision is not None
                bits[group].add(precision.bits)
    assert bits.keys() == set(GROUPS)
    assert {len(kinds) for kinds in bits.values()} == {1}
    return {group: n for group, (n,) in bits.items()}


def stored_bits(wanted: float) -> int:
    """The nearest number of bits that MLX stores."""
    return min((2, 3, 4, 5, 6, 8), key=lambda bits: abs(bits - wanted))


@pytest.mark.parametrize(("name", "fewest"), [("q4-mixed", 4), ("q3-mixed", 3)])
def test_each_group_of_a_mixed_recipe_has_the_bits_that_the_record_wants(
    name: str, fewest: int
) -> None:
    table = RECORD.read_text(encoding="utf-8").split("```")[3]
    recorded = re.findall(r"^(\S+) +([\d,]+) +([\d.e-]+) +[\d.]+$", table, re.MULTILINE)
    rows = [
        SensitivityRow(group, int(n.replace(",", "")), float(kl))
        for group, n, kl in recorded
    ]
    assert sorted(row.group for row in rows) == sorted(GROUPS)
    wanted = {g: stored_bits(bits) for g, bits in wanted_bits(rows, fewest).items()}
    assert bits_of_groups(name) == wanted


@pytest.mark.slow
def test_the_record_is_of_the_demo(tmp_path: Path) -> None:
    sounds = read_sounds(write_held_out(tmp_path / "sounds"))
    # As the command computes, in a fifth of the time.
    with kernel_switches().trying(NUMPY):
        rows = sensitivities(load(demo.DIRECTORY, "float32"), sounds)
    recorded = bits_of_groups("q4-mixed")
    for group, wanted in wanted_bits(rows).items():
        assert wanted == pytest.approx(recorded[group], abs=0.6), group
