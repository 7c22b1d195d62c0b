"""Recipes: the bits of each part of the network, as data."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from voxmlx.layouts import Module, packed_path
from voxmlx.layouts.configs import Precision

__all__ = [
    "ADA_RULE",
    "DEFAULT_RECIPE",
    "RECIPES",
    "DtypeName",
    "Recipe",
    "Rule",
    "precisions",
]

DtypeName = Literal["float16", "bfloat16", "float32"]


@dataclass(frozen=True, slots=True)
class Rule:
    """Modules of the network that `pattern` matches, and what becomes of them.

    The pattern is a glob over the paths of the *network*, where q, k, v are
    `attention.qkv_proj` and gate, up are `mlp.gate_up_proj`: what runs as one
    product cannot get two precisions.
    """

    pattern: str
    precision: Precision | None  # None: not quantized


@dataclass(frozen=True, slots=True)
class Recipe:
    """Ordered rules; the first whose pattern matches decides."""

    name: str
    summary: str
    rules: tuple[Rule, ...]
    dtype: DtypeName | None = None  # None: the user's choice
    is_source_kept: bool = False  # as the source has it, quantized or not

    @property
    def is_rounded(self) -> bool:
        """Return whether the recipe has a mode that leaves a choice of scales."""
        found = [rule.precision for rule in self.rules]
        return any(p is not None and p.mode == "affine" for p in found)

    def precision(self, module: Module) -> Precision | None:
        """Return the precision to which `module` is quantized.

        A matrix whose rows are no whole number of groups is left as it is. Parts of
        one product have rows of one length, so this too treats them alike.
        """
        if not module.can_be_quantized:
            return None
        path = packed_path(module.path)
        for rule in self.rules:
            if fnmatchcase(path, rule.pattern):
                p = rule.precision
                return None if p is None or module.shape[1] % p.group_size else p
        return None


def precisions(
    recipe: Recipe, modules: Iterable[Module], of_source: dict[str, Precision]
) -> dict[str, Precision]:
    """The precision of every module that `recipe` leaves quantized, by our path."""
    found = {
        module.path: of_source.get(module.path)
        if recipe.is_source_kept
        else recipe.precision(module)
        for module in modules
    }
    return {path: p for path, p in found.items() if p is not None}


# The delay's products run once per session and not per step, and the inner one has
# rows of 32: nothing is gained there.
ADA_RULE = Rule("*.ada.*", None)


def _uniform(precision: Precision) -> tuple[Rule, ...]:
    return (ADA_RULE, Rule("*", precision))


def _mixed(fewest: int) -> tuple[Rule, ...]:
    """What each group wants by benchmarks/results/sensitivity.md, as a test has it."""
    return (
        ADA_RULE,
        Rule("decoder.embedding", Precision(fewest + 2, 64)),
        Rule("*.attention.*", Precision(fewest + 1, 64)),
        Rule("adapter.*", Precision(fewest + 1, 64)),
        Rule("*", Precision(fewest, 64)),
    )


_Q3, _Q4, _Q6, _Q8 = (Precision(bits, 64) for bits in (3, 4, 6, 8))

DEFAULT_RECIPE = "q4"

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("bf16", "every weight in bfloat16", (Rule("*", None),), "bfloat16"),
        Recipe("fp16", "every weight in float16", (Rule("*", None),), "float16"),
        Recipe("q8", "8 bits, embedding and adapter included", _uniform(_Q8)),
        Recipe("q6", "6 bits, embedding and adapter included", _uniform(_Q6)),
        Recipe("q4", "4 bits, embedding and adapter included", _uniform(_Q4)),
        Recipe(
            "q4-mixed",
            "4 bits, and where they pay more: attention and adapter 5, embedding 6",
            _mixed(4),
        ),
        Recipe("q3", "3 bits, for 8 GB; embedding and adapter included", _uniform(_Q3)),
        Recipe(
            "q3-mixed",
            "3 bits, and where they pay more: attention and adapter 4, embedding 5",
            _mixed(3),
        ),
        *(
            Recipe(
                name,
                f"{bits} bits in groups of {size} with a scale of 8 bits (M5)",
                _uniform(Precision(bits, size, name)),
            )
            for name, bits, size in (
                ("mxfp4", 4, 32),
                ("nvfp4", 4, 16),
                ("mxfp8", 8, 32),
            )
        ),
        Recipe("keep", "the source's own bits, renamed", (), is_source_kept=True),
    )
}
