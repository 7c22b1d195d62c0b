"""What installs: one package, and a converter that no file of a user's stands in for."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOSTILE = 'raise SystemExit("a file of the user was run")\n'


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like site-packages, with a wheel of this tree unpacked in it."""
    pytest.importorskip("setuptools", reason="install setuptools, which builds wheels")
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("voxmlx", "convert", "tests", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__", "data", "results")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    wheels = tmp_path_factory.mktemp("wheels")
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(wheels)!r})"
    subprocess.run(
        [sys.executable, "-c", code], cwd=tree, check=True, capture_output=True
    )
    (wheel,) = wheels.glob("*.whl")
    folder = tmp_path_factory.mktemp("site-packages")
    shutil.unpack_archive(wheel, folder, "zip")
    return folder


def run(
    arguments: list[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_only_one_package_lands_at_the_top_of_site_packages(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"voxmlx"}
    (top_level,) = installed.glob("*.dist-info/top_level.txt")
    assert top_level.read_text(encoding="utf-8").split() == ["voxmlx"]


def test_a_wheel_holds_every_file_of_the_converter(installed: Path) -> None:
    found = {path.name for path in (installed / "voxmlx" / "convert").glob("*.py")}
    assert found == {path.name for path in (ROOT / "convert").glob("*.py")}


@pytest.mark.parametrize(
    "start",
    [
        ["-m", "voxmlx.convert"],
        ["-c", "from voxmlx.convert.__main__ import main; raise SystemExit(main())"],
    ],
    ids=["module", "script"],
)
def test_somebody_elses_convert_py_is_not_run(
    start: list[str], installed: Path, source: Path, tmp_path: Path
) -> None:
    for name in ("convert", "recipes", "quality", "plan"):
        (tmp_path / f"{name}.py").write_text(HOSTILE, encoding="utf-8")
    done = run([*start, str(source), "ours"], tmp_path, {"PYTHONPATH": str(installed)})
    assert done.returncode == 0, done.stderr
    assert "bits per weight" in done.stdout


def test_the_command_works_in_a_clone(source: Path, tmp_path: Path) -> None:
    destination = tmp_path / "ours"
    done = run(["-m", "convert", str(source), str(destination)], ROOT, {})
    assert done.returncode == 0, done.stderr
    assert (destination / "config.json").is_file()


def test_mlx_lm_is_imported_by_one_file_and_only_when_it_is_used() -> None:
    found: list[tuple[str, bool]] = []
    for path in [*(ROOT / "voxmlx").rglob("*.py"), *(ROOT / "convert").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_once = set(tree.body)
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] == "mlx_lm" for name in names):
                found.append((path.relative_to(ROOT).as_posix(), node in at_once))
    assert found == [("convert/distillation.py", False)]


def test_the_command_starts_without_mlx_lm() -> None:
    code = (
        "import sys; import convert.__main__; "
        "print([n for n in ('mlx_lm', 'transformers') if n in sys.modules])"
    )
    done = run(["-c", code], ROOT, {})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
