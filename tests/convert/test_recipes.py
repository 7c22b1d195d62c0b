"""Recipes are ordered rules, and packed products stay whole."""

from collections import defaultdict

import pytest

from convert.recipes import RECIPES, Recipe, Rule
from tests.convert.directories import MODEL
from tests.tiny import TinyModel
from voxmlx.config import ModelConfig
from voxmlx.layouts import Module, model_modules, packed_path
from voxmlx.layouts.configs import Precision

MODULES = list(model_modules(ModelConfig.from_params(MODEL.params())))
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
def test_a_uniform_recipe_quantises_every_matrix_of_a_step(
    name: str, bits: int
) -> None:
    for module in MODULES:
        expected = module.can_be_quantised and ".ada." not in module.path
        found = RECIPES[name].precision(module)
        assert found == (Precision(bits, 64) if expected else None), module.path


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_a_recipe_of_halves_quantises_nothing(name: str) -> None:
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
