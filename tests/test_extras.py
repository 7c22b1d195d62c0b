"""What is imported is what `pip install` brought: by the package, and by each extra."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.markdown import GUIDE, README, ROOT, blocks

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
OURS = {"voxmlx", "convert", "benchmarks", "examples", "training", "tests"}

# Folder -> the extra that its programs need, as the guide says.
PROGRAMS = {
    "voxmlx": None,
    "voxmlx/serve": "serve",
    "voxmlx/overlay": "serve",
    "voxmlx/web": "serve",
    "convert": "convert",
    "benchmarks": "bench",
    "tests": "dev",
    "training": "training",
    "examples": None,
}
# Imported only where somebody has installed it for himself, and missed loudly.
OPTIONAL = {
    "voxmlx": {"pyinstaller"},  # its hook, which it imports itself
    "benchmarks": {"mlx-audio", "transcribe-cpp"},
    "examples": {"rumps"},
    "tests": {"mlx-audio", "torch", "transformers"},
}


def required(extra: str | None) -> set[str]:
    """The distributions that `pip install voxmlx-realtime[extra]` names."""
    lines = list(PROJECT["dependencies"])
    if extra is not None:
        lines += PROJECT["optional-dependencies"][extra]
    names: set[str] = set()
    for requirement in map(Requirement, lines):
        if requirement.name == PROJECT["name"]:
            for inner in requirement.extras:
                names |= required(inner)
        else:
            names.add(canonicalize_name(requirement.name))
    return names


def imported(folder: str) -> Iterator[tuple[str, str]]:
    """Top-level names that the folder's files import, and where."""
    deeper = [name for name in PROGRAMS if name.startswith(f"{folder}/")]
    for path in sorted((ROOT / folder).rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        if any(place.startswith(f"{name}/") for name in deeper):
            continue
        for name, line in names_imported(path.read_text(encoding="utf-8")):
            yield name, f"{place}:{line}"


def names_imported(code: str) -> Iterator[tuple[str, int]]:
    """Top-level names that some code imports, and the lines."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            yield name.split(".")[0], node.lineno


@pytest.mark.parametrize("folder", PROGRAMS)
def test_every_import_is_of_a_package_that_the_install_names(folder: str) -> None:
    extra = PROGRAMS[folder]
    allowed = required(extra) | OPTIONAL.get(folder, set())
    homes = packages_distributions()
    missing: list[str] = []
    for name, place in imported(folder):
        if name in OURS or name in sys.stdlib_module_names:
            continue
        found = {canonicalize_name(home) for home in homes.get(name, [name])}
        # MLX for Metal and for the CPU are dependencies of one package, mlx.
        if not found & (allowed | OURS) and not (name == "mlx" and "mlx" in allowed):
            missing.append(f"{place}: {name}, which is {' or '.join(sorted(found))}")
    assert not missing, "\n".join(missing)


def test_the_guides_snippets_import_what_the_plain_install_brings() -> None:
    allowed = {name.replace("-", "_") for name in required(None)} | OURS
    for page in [README, *GUIDE]:
        for snippet in blocks(page, "python"):
            for name, _ in names_imported(snippet):
                assert name in allowed | set(sys.stdlib_module_names), page.name


def test_every_extra_that_the_guide_names_is_there() -> None:
    for page in [README, *GUIDE]:
        text = page.read_text(encoding="utf-8")
        for extras in re.findall(r"(?:\.|voxmlx-realtime)\[([\w,]+)\]", text):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
