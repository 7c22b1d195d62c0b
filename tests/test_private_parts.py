"""Tests use public seams: what a test touches of an object has a public name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

# Public names that begin with an underscore, and one of another package that has no
# public way for what it does.
ALLOWED = {"_exit", "_replace", "_from_config"}


def is_private(name: str) -> bool:
    is_one = name.startswith("_") and not name.endswith("__")
    return is_one and not name.isupper() and name not in ALLOWED


def patched(call: ast.Call) -> Iterator[str]:
    """Yield the private name that is set by its spelling, if one is."""
    named = [one.value for one in call.args[:2] if isinstance(one, ast.Constant)]
    if any(isinstance(n, str) and is_private(n.rpartition(".")[2]) for n in named):
        yield f"line {call.lineno}: {ast.unparse(call)}"


def private_parts(source: str) -> Iterator[str]:
    """Yield each private part of an object of others that some code reaches into.

    Constants of a module are none: a test may read them and set them.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr"):
            yield from patched(node)
        if not isinstance(node, ast.Attribute) or not is_private(node.attr):
            continue
        if isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}:
            continue
        if isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()":
            continue
        yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS))
)
def test_no_test_reaches_into_private_parts(path: Path) -> None:
    assert [*private_parts(path.read_text(encoding="utf-8"))] == []


def test_a_private_part_is_found_wherever_it_is() -> None:
    for code in (
        "a._b",
        "f(x)._b.c",
        "a[0]._b = 1",
        "x = [y._z for y in w]",
        "p.setattr(a, '_b', 1)",
    ):
        assert [*private_parts(code)], code
    for code in (
        "self._b",
        "super()._b()",
        "a.__class__",
        "os._exit(0)",
        "a._N",
        "a.b",
    ):
        assert not [*private_parts(code)], code
