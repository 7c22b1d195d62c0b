"""Recipes are ordered rules, and packed products stay whole."""

import re
from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from convert.quality import read_sounds
from convert.sensitivity import GROUPS, rank
from tests.convert.directories import MODEL
from tests.tiny import TinyModel
from voxmlx import demo, load
from voxmlx.config import ModelConfig
from voxmlx.layouts import Module, model_modules, packed_path
from voxmlx.layouts.configs import Precision
from voxmlx.layouts.recipes import RECIPES, Recipe, Rule

Q4 = Precision(4, 64)

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


def protected(name: str) -> set[str]:
    """The groups of the ranking to which a recipe gives more than its fewest bits."""
    bits: dict[str, set[int]] = defaultdict(set)
    for module in MODULES:
        precision = RECIPES[name].precision(module)
        for group in GROUPS:
            if fnmatchcase(packed_path(module.path), group):
                assert precision is not None
                bits[group].add(precision.bits)
    assert bits.keys() == set(GROUPS)
    assert {len(kinds) for kinds in bits.values()} == {1}
    fewest = min(min(kinds) for kinds in bits.values())
    return {group for group, (n,) in bits.items() if n > fewest}


def test_the_mixed_recipe_protects_the_top_of_the_recorded_ranking() -> None:
    table = RECORD.read_text(encoding="utf-8").split("```")[3]
    recorded = re.findall(r"^(\S+) +[\d,]+ +[\d.]+ +[\d.]+$", table, re.MULTILINE)
    assert sorted(recorded) == sorted(GROUPS)
    chosen = protected("q4-mixed")
    assert 0 < len(chosen) < len(GROUPS) / 2
    assert set(recorded[: len(chosen)]) == chosen
    assert not protected("q4")


@pytest.mark.slow
def test_the_mixed_recipe_protects_the_top_of_the_ranking_on_the_demos_sample() -> None:
    rows = rank(load(demo.DIRECTORY, "float32"), read_sounds([demo.SAMPLE]), Q4)
    chosen = protected("q4-mixed")
    assert {row.group for row in rows[: len(chosen)]} == chosen
