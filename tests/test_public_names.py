"""Every public name is there, is explained, and stands in the reference."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

import voxmlx
from voxmlx import errors

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
NAMES = [name for name in voxmlx.__all__ if name != "__version__"]
CONSTANTS = {"GUARDS", "LEGAL_DELAYS_MS"}


def homes_for_type_checkers() -> dict[str, str]:
    """The module each name is imported from where only type checkers look."""
    tree = ast.parse((ROOT / "voxmlx" / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("voxmlx")
        for alias in node.names
        if node.module is not None
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_public_where_it_comes_from(name: str) -> None:
    home = import_module(homes_for_type_checkers()[name])
    assert name in home.__all__
    assert getattr(voxmlx, name) is getattr(home, name)


def test_no_name_is_imported_that_is_not_public() -> None:
    assert sorted(homes_for_type_checkers()) == sorted(NAMES)
    assert dir(voxmlx) == sorted(voxmlx.__all__)


@pytest.mark.parametrize("name", sorted(set(NAMES) - CONSTANTS))
def test_every_public_name_is_explained(name: str) -> None:
    assert inspect.getdoc(getattr(voxmlx, name))


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_stands_in_the_reference_once(name: str) -> None:
    assert re.findall(rf"^::: voxmlx\.{name}$", REFERENCE, re.MULTILINE) == [
        f"::: voxmlx.{name}"
    ]


def test_the_reference_names_nothing_else() -> None:
    assert set(re.findall(r"^::: voxmlx\.(\S+)$", REFERENCE, re.MULTILINE)) == set(
        NAMES
    )


def test_every_error_and_every_event_is_public() -> None:
    assert set(errors.__all__) <= set(voxmlx.__all__)
    events = {event.__name__ for event in get_args(voxmlx.Event)}
    assert events
    assert events <= set(voxmlx.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sesion'"):
        _ = voxmlx.Sesion  # pyright: ignore[reportAttributeAccessIssue] -- not there


def test_the_version_is_the_one_that_is_installed() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{voxmlx.__version__}"' in project
