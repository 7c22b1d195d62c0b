"""Imports point down, the package stands alone, and importing it costs nothing."""

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "voxmlx"

# docs/design.md's order, lowest first: a part may import its own layer and those above
# this line, never those below. A name stands for a module or a whole package.
LAYERS = (
    {"errors", "config", "events", "forks", "memory", "other_package"},
    {"text", "kernels", "audio", "demo"},
    {"model"},
    {"decoding"},
    {
        "hub",
        "layouts",
        "checkpoint",
        "timeline",
        "batch",
        "session_options",
        "session",
        "streaming",
    },
    {"file_transcript", "alignment"},
    {"cli"},
    {"client", "web"},
    {"overlay"},
    {"live", "transcribe", "align", "doctor"},
    {"serve"},
    {"__main__", "__pyinstaller"},
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# The package's own `__init__` hands out names of what lies below the commands.
RANKS["__init__"] = RANKS["file_transcript"]

OUTSIDERS = {"convert", "benchmarks", "examples", "tests", "training"}

# Seconds of start-up, or a capability (sound devices, the network) that an import
# has no business with.
HEAVY = (
    "av",
    "huggingface_hub",
    "mistral_common",
    "mlx_lm",
    "prometheus_client",
    "rich",
    "sounddevice",
    "soundfile",
    "soxr",
    "starlette",
    "torch",
    "transformers",
    "uvicorn",
    "websockets",
)


def module_name(path: Path) -> str:
    """voxmlx/audio/files.py -> voxmlx.audio.files; a package is its directory."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = [*PACKAGE.rglob("*.py"), *(ROOT / "convert").rglob("*.py")]
MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def part_of(module: str) -> str:
    """The name in LAYERS that a module falls under."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute names a file imports anywhere, modules where they are modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module, node.lineno


def imports_of_ours(path: Path) -> Iterator[tuple[str, int]]:
    for name, line in imports(path):
        if name.split(".")[0] == "voxmlx":
            yield name, line


@pytest.mark.parametrize("module", MODULES)
def test_every_part_has_a_layer(module: str) -> None:
    assert part_of(module) in RANKS, "give it a place in LAYERS and in docs/design.md"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    own_rank = RANKS[part_of(module)]
    upward = [
        f"line {line}: {name}"
        for name, line in imports_of_ours(MODULES[module])
        if RANKS[part_of(name)] > own_rank
    ]
    assert upward == []


def test_imports_make_no_circle() -> None:
    graph = {
        module: {name for name, _ in imports_of_ours(path)} - {module}
        for module, path in MODULES.items()
        if module != "voxmlx"  # its names load on first use
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {error.args[1]}")


@pytest.mark.parametrize("module", MODULES)
def test_the_package_does_not_import_what_uses_it(module: str) -> None:
    outside = [
        f"line {line}: {name}"
        for name, line in imports(MODULES[module])
        if name.split(".")[0] in OUTSIDERS
    ]
    assert outside == []


@pytest.mark.parametrize("module", MODULES)
def test_no_import_is_relative(module: str) -> None:
    relative = [
        node.lineno
        for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level > 0
    ]
    assert relative == []


def run_python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = run_python("import sys, voxmlx; print(*sys.modules)").split()
    assert "voxmlx" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_opening_a_session_imports_nothing_it_does_not_need() -> None:
    loaded = run_python(
        "import sys, voxmlx; voxmlx.load, voxmlx.Session; print(*sys.modules)"
    ).split()
    assert "voxmlx.session" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_only_hot_words_import_mistral_common() -> None:
    named = "print(*{name.split('.')[0] for name in sys.modules})"
    loaded, with_hotwords = run_python(
        "import sys, numpy, voxmlx; checkpoint = voxmlx.load('demo'); "
        "session = voxmlx.Session(checkpoint); "
        "session.push(numpy.zeros(4000, numpy.float32)); session.finish(); "
        f"{named}; voxmlx.Session(checkpoint, hotwords=['lamp']); {named}"
    ).splitlines()
    theirs = {"mistral_common", "tiktoken", "pydantic", "regex", "requests"}
    assert theirs & {*loaded.split()} == set()
    assert {"mistral_common", "tiktoken"} <= {*with_hotwords.split()}


def test_importing_the_package_takes_less_than_300_ms() -> None:
    code = (
        "import time; start = time.perf_counter(); import voxmlx; "
        "print(time.perf_counter() - start)"
    )
    assert min(float(run_python(code)) for _ in range(5)) < 0.3


def test_the_build_lists_every_package() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = content["tool"]["setuptools"]["packages"]
    found = {module_name(path) for path in PACKAGE.rglob("__init__.py")}
    assert sorted(listed) == sorted(found | {"voxmlx.convert"})


@pytest.mark.parametrize(
    "path", sorted(SOURCES), ids=lambda p: str(p.relative_to(ROOT))
)
def test_types_are_strict_but_where_mlx_nn_is_imported(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    names = {name for name, _ in imports(path)}
    assert ("# pyright: standard" in source) == ("mlx.nn" in names)
    assert "pyright: basic" not in source
